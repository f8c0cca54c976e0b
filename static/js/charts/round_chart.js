// A line chart over rounds: all devices together as a bold line, each device as a thin one.
import { ChartCard, segments } from "./chart_card.js";
import { saveCsv, savePng } from "./chart_export.js";
import { axis, chartColours, tooltip, zoom } from "./chart_style.js";
import { colourOf, dashOf } from "./chart_page.js";

export class RoundChart {
  needs = "rounds";

  // `scores`: [{key, label}] to choose from, the first is shown initially. A device's value is read
  // from its parts of `task`, or by `deviceValue(round, key, slot)`. `totalValue(round, key)` is that
  // of all devices; null where there is none.
  constructor(page, options) {
    const { title, subtitle, scores, wide } = options;
    Object.assign(this, { page, task: "evaluate", totalLabel: "Weighted mean", fromZero: false,
      totalValue: (round, key) => round.evaluation[key], ...options });
    this.score = scores[0];
    const choose = (score) => {
      this.score = score;
      this.draw();
    };
    this.card = new ChartCard({ title, subtitle, wide, tools: scores.length > 1 ? [segments(title, scores, choose)] : [] });
    this.card.reset.addEventListener("click", () => this.unzoom());
    this.card.plot.addEventListener("dblclick", () => this.unzoom());
    this.card.onpng = () => savePng(this.card, page.devices, colourOf, dashOf);
    this.card.oncsv = () => saveCsv(this.card, ...this.table());
    this.card.ontable = () => this.fillTable();
    this.zoomTo = null;
  }

  unzoom() {
    this.zoomTo = null;
    this.card.showReset(false);
    this.draw();
  }

  create() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "line",
      data: { datasets: [] },
      options: { parsing: false, interaction: { mode: "each", intersect: false } },
    });
    this.restyle();
  }

  restyle() {
    if (!this.chart) return;
    const colours = chartColours();
    const { options } = this.chart;
    options.scales = {
      x: axis(colours, (value) => (Number.isInteger(value) ? (value ? `${value}` : "start") : ""), "round",
        { type: "linear", offset: false }),
      y: axis(colours, (value) => this.format(value), this.unit, { grace: "8%", beginAtZero: this.fromZero }),
    };
    options.scales.x.grid.display = false;
    options.scales.x.ticks.maxTicksLimit = 12;
    options.scales.x.ticks.precision = 0;
    options.plugins.tooltip = tooltip(colours, {
      title: (items) => (items.length ? (items[0].parsed.x ? `Round ${items[0].parsed.x}` : "Baseline") : ""),
      label: (item) => ` ${item.dataset.label}: ${this.format(item.parsed.y)}`,
    });
    options.plugins.zoom = zoom(({ chart }) => {
      if (this.drawing) return;
      this.zoomTo = [chart.scales.x.min, chart.scales.x.max];
      this.card.showReset(true);
    });
  }

  rounds() {
    const newest = new Map();
    for (const round of this.page.rounds) newest.set(round.number, round);
    return [...newest.values()];
  }

  totals() {
    if (!this.totalValue) return [];
    return this.rounds()
      .map((round) => ({ x: round.number, y: this.totalValue(round, this.score.key) }))
      .filter((point) => point.y != null);
  }

  value(round, slot) {
    if (this.deviceValue) return this.deviceValue(round, this.score.key, slot);
    const parts = round[this.task].filter((part) => part.slot === slot && part[this.score.key] != null);
    return parts.at(-1)?.[this.score.key];
  }

  line(slot) {
    return this.rounds()
      .map((round) => ({ x: round.number, y: this.value(round, slot) }))
      .filter((point) => point.y != null);
  }

  draw() {
    const totals = this.totals();
    const lines = this.page.devices.filter((device) => this.page.isShown(device));
    if (!totals.length && !lines.some((device) => this.line(device.slot).length)) {
      return this.card.showMessage(this.emptyText(this.page));
    }
    if (!this.chart) this.create();
    this.card.showMessage("");
    const total = { label: this.totalLabel, data: totals, borderColor: chartColours().mean, backgroundColor: chartColours().mean,
      borderWidth: 2.5, pointRadius: 3, order: 0, clip: 6 };
    this.chart.data.datasets = [
      ...(this.totalValue ? [total] : []),
      ...lines.map(({ name, slot }) => ({
        label: name, data: this.line(slot), borderColor: colourOf(slot), backgroundColor: colourOf(slot),
        borderDash: dashOf(slot), borderWidth: 1.25, pointRadius: 2, order: 1, clip: 6,
      })),
    ];
    const x = this.chart.options.scales.x;
    const last = this.rounds().at(-1)?.number || 0;
    [x.min, x.max] = this.zoomTo || [this.task === "train" ? 1 : 0, Math.max(this.task === "train" ? 2 : 1, last)];
    x.ticks.stepSize = x.max - x.min <= 12 ? 1 : undefined;
    this.drawing = true;
    this.chart.update("none");
    this.drawing = false;
    this.fillTable();
  }

  table() {
    const header = ["Round", ...(this.totalValue ? [this.totalLabel] : []), ...this.page.devices.map((device) => device.name)];
    const rows = this.rounds()
      .filter((round) => round.number || this.task === "evaluate")
      .map((round) => [String(round.number), ...(this.totalValue ? [this.totalValue(round, this.score.key)] : []),
        ...this.page.devices.map((device) => this.value(round, device.slot))]);
    return [header, rows];
  }

  fillTable() {
    if (!this.card.data.open) return;
    const [header, rows] = this.table();
    this.card.fillTable(header, rows.map(([number, ...values]) => [number === "0" ? "start" : number, ...values.map(this.format)]));
  }
}
