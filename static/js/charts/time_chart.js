// A line chart over time: one metric of every device, live.
import { clock } from "../lib/format.js";
import { ChartCard, segments } from "./chart_card.js";
import { saveCsv, savePng } from "./chart_export.js";
import { axis, chartColours, tooltip, zoom } from "./chart_style.js";
import { colourOf, dashOf } from "./chart_page.js";

const MAX_POINTS = 3000; // of all lines of a chart together

export class TimeChart {
  needs = "samples";

  // `format` writes one value with its unit; `subtitle` and `emptyText` may be functions of the page.
  // `choices` are [{label, metrics}] to switch between, instead of `metrics`.
  constructor(page, { title, subtitle, metrics, choices, format, unit, emptyText, fromZero = true }) {
    Object.assign(this, { page, metrics: metrics || choices[0].metrics, format, unit, subtitle, emptyText, fromZero });
    this.lines = new Map(); // "device/metric" -> dataset
    const choose = (choice) => {
      this.metrics = choice.metrics;
      this.draw();
    };
    this.card = new ChartCard({ title, tools: choices ? [segments(title, choices, choose)] : [] });
    this.card.reset.addEventListener("click", () => page.setRange(null));
    this.card.plot.addEventListener("dblclick", () => page.setRange(null));
    this.card.onpng = () => savePng(this.card, page.devices, colourOf, dashOf);
    this.card.oncsv = () => this.csv();
    this.card.ontable = () => this.fillTable();
  }

  create() {
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
    const colours = chartColours();
    const { options } = this.chart;
    options.scales = {
      x: axis(colours, undefined, "", {
        type: "time",
        time: { displayFormats: { millisecond: "HH:mm:ss", second: "HH:mm:ss", minute: "HH:mm", hour: "HH:mm" } },
      }),
      y: axis(colours, (value) => this.format(value), this.unit, { beginAtZero: this.fromZero, grace: "5%" }),
    };
    options.scales.x.grid.display = false;
    options.scales.x.ticks.autoSkipPadding = 24;
    delete options.scales.x.ticks.callback;
    options.plugins.tooltip = tooltip(colours, {
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
        .filter(({ key }) => page.store.has(device.id, key) && page.isShown(device))
        .map((metric) => ({ device, ...metric })));
    this.card.setSubtitle(typeof this.subtitle === "function" ? this.subtitle(page) : this.subtitle);
    if (!lines.length) return this.card.showMessage(typeof this.emptyText === "function" ? this.emptyText(page) : this.emptyText);
    if (!this.chart) this.create();
    this.card.showMessage("");
    const [from, to] = page.timeRange();
    const pointsPerLine = Math.max(40, MAX_POINTS / lines.length);
    this.chart.data.datasets = lines.map((line) => this.dataset(line, from, to, pointsPerLine));
    this.chart.options.scales.x.min = from;
    this.chart.options.scales.x.max = to;
    this.chart.options.plugins.annotation.annotations = page.annotations?.(from, to) || {};
    this.drawing = true;
    this.chart.update("none");
    this.drawing = false;
    if (this.card.data.open) this.fillTable();
  }

  // The same object while the line exists: Chart.js resolves the options of a new one again.
  dataset({ device, key, label, dash }, from, to, pointsPerLine) {
    const name = `${device.id}/${key}`;
    if (!this.lines.has(name)) this.lines.set(name, this.style(device, label, dash));
    const dataset = this.lines.get(name);
    dataset.data = this.page.store.series(device.id, key).view(from, to, pointsPerLine);
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
    const { crosshair: line } = this.card;
    const area = this.chart?.chartArea;
    const x = time === undefined || !area ? -1 : this.chart.scales.x.getPixelForValue(time);
    line.hidden = !area || x < area.left || x > area.right;
    if (line.hidden) return;
    line.style.transform = `translateX(${Math.round(x)}px)`;
    line.style.top = `${area.top}px`;
    line.style.height = `${area.bottom - area.top}px`;
  }

  visibleSeries() {
    return this.page.devices.flatMap((device) =>
      this.metrics
        .filter(({ key }) => this.page.store.has(device.id, key))
        .map(({ key, label }) => ({ name: label ? `${device.name} ${label}` : device.name,
          series: this.page.store.series(device.id, key) })));
  }

  fillTable() {
    if (!this.card.data.open) return;
    const rows = this.visibleSeries().map(({ name, series }) => {
      const known = series.v.filter((value) => !Number.isNaN(value));
      const least = known.reduce((a, b) => Math.min(a, b), Infinity);
      const most = known.reduce((a, b) => Math.max(a, b), -Infinity);
      return [name, String(known.length), ...[known.at(-1), least, most].map(this.format)];
    });
    this.card.fillTable(["Device", "Points", "Latest", "Lowest", "Highest"], rows);
  }

  csv() {
    const rows = this.visibleSeries().flatMap(({ name, series }) =>
      series.t.map((time, i) => [name, new Date(time).toISOString(), series.v[i]])
        .filter(([, , value]) => !Number.isNaN(value)));
    saveCsv(this.card, ["device", "time", this.metrics.map(({ key }) => key).join("/")], rows);
  }
}
