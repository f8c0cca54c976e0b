// A metric of every device over time.
import { clock } from "../lib/format.js";
import { Card, segments } from "./card.js";
import { saveCsv, savePng } from "./export.js";
import { axis, look, tooltip, zoom } from "./options.js";
import { colourOf, dashOf } from "./page.js";

const POINTS = 3000; // of all lines of a chart together

export class TimeChart {
  needs = "samples";

  // `format` writes one value with its unit; `subtitle` may be a function of the page. `choices`
  // are [{label, metrics}] to switch between, in place of `metrics`.
  constructor(page, { title, subtitle, metrics, choices, format, unit, nothing, fromZero = true }) {
    Object.assign(this, { page, metrics: metrics || choices[0].metrics, format, unit, subtitle, nothing, fromZero });
    this.lines = new Map(); // "device/metric" -> dataset
    const choose = (choice) => {
      this.metrics = choice.metrics;
      this.draw();
    };
    this.card = new Card({ title, tools: choices ? [segments(title, choices, choose)] : [] });
    this.card.reset.addEventListener("click", () => page.setRange(null));
    this.card.plot.addEventListener("dblclick", () => page.setRange(null));
    this.card.onpng = () => savePng(this.card, page.devices, colourOf, dashOf);
    this.card.oncsv = () => this.csv();
    this.card.ontable = () => this.fill();
  }

  make() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "line",
      data: { datasets: [] },
      options: { parsing: false, spanGaps: false, interaction: { mode: "each", intersect: false } },
    });
    this.restyle();
  }

  restyle() {
    this.lines.clear();
    if (!this.chart) return;
    const paint = look();
    const { options } = this.chart;
    options.scales = {
      x: axis(paint, undefined, "", {
        type: "time",
        time: { displayFormats: { millisecond: "HH:mm:ss", second: "HH:mm:ss", minute: "HH:mm", hour: "HH:mm" } },
      }),
      y: axis(paint, (value) => this.format(value), this.unit, { beginAtZero: this.fromZero, grace: "5%" }),
    };
    options.scales.x.grid.display = false;
    options.scales.x.ticks.autoSkipPadding = 24;
    delete options.scales.x.ticks.callback;
    options.plugins.tooltip = tooltip(paint, {
      title: (items) => (items.length ? clock(items[0].parsed.x) : ""),
      label: (item) => ` ${item.dataset.label}: ${this.format(item.parsed.y)}`,
    });
    options.plugins.zoom = zoom(({ chart }) => {
      const { min, max } = chart.scales.x;
      if (!this.drawing) this.page.setRange([min, max]);
    });
    options.plugins.annotation = { annotations: {} };
  }

  draw() {
    const { page } = this;
    const lines = page.devices.flatMap((device) =>
      this.metrics
        .filter(({ key }) => page.store.has(device.id, key) && page.shows(device))
        .map((metric) => ({ device, ...metric })));
    this.card.say(typeof this.subtitle === "function" ? this.subtitle(page) : this.subtitle);
    if (!lines.length) return this.card.empty(typeof this.nothing === "function" ? this.nothing(page) : this.nothing);
    if (!this.chart) this.make();
    this.card.empty("");
    const [from, to] = page.bounds();
    const each = Math.max(40, POINTS / lines.length);
    this.chart.data.datasets = lines.map((line) => this.dataset(line, from, to, each));
    this.chart.options.scales.x.min = from;
    this.chart.options.scales.x.max = to;
    this.chart.options.plugins.annotation.annotations = page.marks?.(from, to) || {};
    this.drawing = true;
    this.chart.update("none");
    this.drawing = false;
    if (this.card.data.open) this.fill();
  }

  // The same object as long as the line exists: Chart.js works out the options of a new one anew.
  dataset({ device, key, label, dash }, from, to, each) {
    const name = `${device.id}/${key}`;
    if (!this.lines.has(name)) this.lines.set(name, this.style(device, label, dash));
    const dataset = this.lines.get(name);
    dataset.data = this.page.store.series(device.id, key).view(from, to, each);
    const radius = dataset.data.length < 40 ? 1.75 : 0;
    if (dataset.pointRadius !== radius) dataset.pointRadius = radius;
    return dataset;
  }

  style(device, label, dash) {
    return {
      label: label ? `${device.name} ${label}` : device.name,
      borderColor: colourOf(device.slot),
      backgroundColor: colourOf(device.slot),
      borderDash: dash || dashOf(device.slot),
      borderWidth: this.page.devices.length > 12 ? 1.25 : 1.75,
      borderCapStyle: "round",
      borderJoinStyle: "round",
      pointRadius: 0,
      pointHitRadius: 0,
      pointHoverRadius: 3,
    };
  }

  timeAt(event) {
    if (!this.chart) return undefined;
    const x = event.clientX - this.card.plot.getBoundingClientRect().left;
    const { left, right } = this.chart.chartArea;
    return x < left || x > right ? undefined : this.chart.scales.x.getValueForPixel(x);
  }

  crosshair(time) {
    const { line } = this.card;
    const area = this.chart?.chartArea;
    const x = time === undefined || !area ? -1 : this.chart.scales.x.getPixelForValue(time);
    line.hidden = !area || x < area.left || x > area.right;
    if (line.hidden) return;
    line.style.transform = `translateX(${Math.round(x)}px)`;
    line.style.top = `${area.top}px`;
    line.style.height = `${area.bottom - area.top}px`;
  }

  each() {
    return this.page.devices.flatMap((device) =>
      this.metrics
        .filter(({ key }) => this.page.store.has(device.id, key))
        .map(({ key, label }) => ({ name: label ? `${device.name} ${label}` : device.name,
          series: this.page.store.series(device.id, key) })));
  }

  fill() {
    if (!this.card.data.open) return;
    const rows = this.each().map(({ name, series }) => {
      const known = series.v.filter((value) => !Number.isNaN(value));
      const least = known.reduce((a, b) => Math.min(a, b), Infinity);
      const most = known.reduce((a, b) => Math.max(a, b), -Infinity);
      return [name, String(known.length), ...[known.at(-1), least, most].map(this.format)];
    });
    this.card.fill(["Device", "Points", "Latest", "Lowest", "Highest"], rows);
  }

  csv() {
    const rows = this.each().flatMap(({ name, series }) =>
      series.t.map((time, i) => [name, new Date(time).toISOString(), series.v[i]])
        .filter(([, , value]) => !Number.isNaN(value)));
    saveCsv(this.card, ["device", "time", this.metrics.map(({ key }) => key).join("/")], rows);
  }
}
