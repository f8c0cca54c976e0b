// The common style of all charts: Chart.js defaults, colours, axes, tooltips, zoom.
import { token } from "../lib/dom.js";
import { duration } from "../lib/format.js";

export function configureCharts() {
  const { Chart } = window;
  Chart.defaults.animation = false;
  Chart.defaults.responsive = true;
  Chart.defaults.maintainAspectRatio = false;
  Chart.defaults.normalized = true;
  Chart.defaults.plugins.legend.display = false;
  Chart.Interaction.modes.each = nearestPerLine;
}

// The nearest point of each visible line, the eight closest to the pointer.
function nearestPerLine(chart, event) {
  const nearest = [];
  chart.getSortedVisibleDatasetMetas().forEach((meta) => {
    let best = null;
    for (let index = 0; index < meta.data.length; index++) {
      const element = meta.data[index];
      if (element.skip || Number.isNaN(element.y)) continue;
      const distance = Math.abs(element.x - event.x);
      if (distance < 40 && (!best || distance < best.distance)) best = { distance, element, index };
    }
    if (best) nearest.push({ ...best, datasetIndex: meta.index });
  });
  const verticalDistance = (item) => Math.abs(item.element.y - event.y);
  return nearest.sort((a, b) => verticalDistance(a) - verticalDistance(b)).slice(0, 8);
}

export function chartColours() {
  return {
    text: token("--text"), faint: token("--text-3"), grid: token("--grid"), line: token("--line"),
    surface: token("--surface"), mean: token("--mean"),
  };
}

// Drops trailing zeros of a tick: 50 %, 1.5 MB/s.
const trimZeros = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

export function axis(colours, format, title, extra = {}) {
  return {
    grid: { color: colours.grid, tickLength: 4, drawTicks: false },
    border: { display: false },
    ticks: { color: colours.faint, font: { size: 11 }, callback: format && ((value) => trimZeros(format(value))), maxTicksLimit: 6, padding: 6, maxRotation: 0 },
    title: { display: Boolean(title), text: title, color: colours.faint, font: { size: 11 } },
    ...extra,
  };
}

// A round tick step for [0, most] seconds: 10 s, 2 min, 30 min, 6 h.
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200];
export const timeStep = (most) => STEPS_S.find((step) => most / step <= 6) ?? 86400 * Math.ceil(most / 6 / 86400);

// Seconds on an axis; exact, where duration() would round 100 s to 2 min.
export const tickSeconds = (value) => (value % 60 && value < 3600 ? `${Math.round(10 * value) / 10} s` : duration(value));

export function tooltip(colours, callbacks) {
  return {
    backgroundColor: colours.surface, titleColor: colours.text, bodyColor: colours.text,
    borderColor: colours.line, borderWidth: 1, padding: 10, boxWidth: 8, boxHeight: 8, boxPadding: 5,
    usePointStyle: true, titleFont: { size: 12, weight: 600 }, bodyFont: { size: 12 }, callbacks,
  };
}

export function zoom(onZoom) {
  return {
    zoom: {
      drag: { enabled: true, backgroundColor: "rgba(120,150,220,0.18)", threshold: 6 },
      wheel: { enabled: false }, pinch: { enabled: true }, mode: "x", onZoomComplete: onZoom,
    },
  };
}
