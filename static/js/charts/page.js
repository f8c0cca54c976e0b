// What the charts of one page share: devices and their colours, the time range, the crosshair, and
// the moment of drawing (at most four times a second, one chart a frame, only what is seen).
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
    this.over = ""; // why nothing more will come, in place of a chart's promise of points
    this.charts = [];
    this.isolated = null;
    this.range = null;
    this.drawn = 0;
    this.pause = DRAW_INTERVAL_MS;
    this.watcher = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: "120px" });
    document.addEventListener("themechange", () => this.restyle());
    document.addEventListener("visibilitychange", () => document.hidden || this.invalidate());
  }

  add(chart) {
    this.charts.push(chart);
    chart.dirty = true;
    this.watcher.observe(chart.card.root);
    chart.card.plot.addEventListener("pointermove", (event) => this.point(chart, event));
    chart.card.plot.addEventListener("pointerleave", () => this.point(null));
    return chart;
  }

  seen(entries) {
    for (const entry of entries) {
      const chart = this.charts.find((one) => one.card.root === entry.target);
      chart.visible = entry.isIntersecting;
    }
    this.soon();
  }

  // Something changed: every chart that shows it ("samples", "rounds", or all) is drawn once.
  invalidate(what) {
    for (const chart of this.charts) if (!what || chart.needs === what) chart.dirty = true;
    this.soon();
  }

  soon() {
    if (this.timer || document.hidden) return;
    const wait = Math.max(0, this.drawn + Math.min(2000, this.pause) - performance.now());
    this.timer = setTimeout(() => this.flush(), wait);
  }

  flush() {
    this.drawn = performance.now();
    const due = this.charts.filter((chart) => chart.dirty && chart.visible);
    let spent = 0;
    const next = () => {
      const chart = due.shift();
      if (!chart) {
        this.timer = 0;
        // What came in meanwhile is drawn with the next round.
        if (this.charts.some((one) => one.dirty && one.visible)) this.soon();
        return;
      }
      chart.dirty = false;
      const started = performance.now();
      chart.draw();
      // Drawing may take a fifth of the time, however many lines there are.
      spent += performance.now() - started;
      this.pause = Math.max(DRAW_INTERVAL_MS, 5 * spent);
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

  shows(device) {
    return this.isolated === null || this.isolated === device.id;
  }

  setRange(range) {
    this.range = range;
    for (const chart of this.charts) chart.card.zoomed(Boolean(range));
    this.invalidate();
  }

  bounds() {
    if (this.range) return this.range;
    const { from, to } = this.store;
    return from < to ? [from, to] : [from - 5000, from + 5000];
  }

  // One crosshair for all charts over time: a line moved over each, so that nothing is redrawn.
  point(source, event) {
    const time = source?.timeAt?.(event);
    for (const chart of this.charts) chart.crosshair?.(time);
  }
}
