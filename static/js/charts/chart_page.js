// State shared by the charts of one page: devices and their colours, time range, crosshair, and the
// drawing schedule (at most four times a second, one chart per frame, visible charts only).
import { token } from "../lib/dom.js";

const COLOURS = 7;
const DASHES = [[], [7, 3], [2, 2], [9, 3, 2, 3], [4, 6], [1, 4], [12, 4]];
const DRAW_INTERVAL_MS = 250;

export const colourOf = (slot) => token(`--device-${(slot % COLOURS) + 1}`);
export const dashOf = (slot) => DASHES[Math.floor(slot / COLOURS) % DASHES.length];

export class ChartPage {
  constructor(store) {
    this.store = store;
    this.devices = []; // {id, slot, name}
    this.endText = ""; // why no more data will come; replaces the message of an empty chart
    this.charts = [];
    this.isolated = null; // id of the only device shown
    this.range = null; // [from, to] of the zoom
    this.drawnAt = 0;
    this.intervalMs = DRAW_INTERVAL_MS;
    this.observer = new IntersectionObserver((entries) => this.onIntersect(entries), { rootMargin: "120px" });
    document.addEventListener("themechange", () => this.restyle());
    document.addEventListener("visibilitychange", () => document.hidden || this.invalidate());
  }

  add(chart) {
    this.charts.push(chart);
    chart.dirty = true;
    this.observer.observe(chart.card.root);
    chart.card.plot.addEventListener("pointermove", (event) => this.moveCrosshair(chart, event));
    chart.card.plot.addEventListener("pointerleave", () => this.moveCrosshair(null));
    return chart;
  }

  onIntersect(entries) {
    for (const entry of entries) {
      const chart = this.charts.find((item) => item.card.root === entry.target);
      chart.visible = entry.isIntersecting;
    }
    this.schedule();
  }

  // Marks the charts of changed data ("samples", "rounds", or all) and draws them once.
  invalidate(data) {
    for (const chart of this.charts) if (!data || chart.needs === data) chart.dirty = true;
    this.schedule();
  }

  schedule() {
    if (this.timer || document.hidden) return;
    const delay = Math.max(0, this.drawnAt + Math.min(2000, this.intervalMs) - performance.now());
    this.timer = setTimeout(() => this.drawDirty(), delay);
  }

  drawDirty() {
    this.drawnAt = performance.now();
    const due = this.charts.filter((chart) => chart.dirty && chart.visible);
    let spentMs = 0;
    const next = () => {
      const chart = due.shift();
      if (!chart) {
        this.timer = 0;
        // Data that arrived meanwhile is drawn in the next pass.
        if (this.charts.some((item) => item.dirty && item.visible)) this.schedule();
        return;
      }
      chart.dirty = false;
      const startedAt = performance.now();
      chart.draw();
      // Drawing may take a fifth of the time, however many lines there are.
      spentMs += performance.now() - startedAt;
      this.intervalMs = Math.max(DRAW_INTERVAL_MS, 5 * spentMs);
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  }

  restyle() {
    for (const chart of this.charts) chart.restyle();
    this.invalidate();
    this.onrestyle?.();
  }

  isolate(id) {
    this.isolated = this.isolated === id ? null : id;
    this.invalidate();
    this.onisolate?.();
  }

  isShown(device) {
    return this.isolated === null || this.isolated === device.id;
  }

  setRange(range) {
    this.range = range;
    for (const chart of this.charts) chart.card.showReset(Boolean(range));
    this.invalidate();
  }

  timeRange() {
    if (this.range) return this.range;
    const { from, to } = this.store;
    return from < to ? [from, to] : [from - 5000, from + 5000];
  }

  // One crosshair for all time charts: an element moved over each, so nothing is redrawn.
  moveCrosshair(source, event) {
    const time = source?.timeAt?.(event);
    for (const chart of this.charts) chart.crosshair?.(time);
  }
}
