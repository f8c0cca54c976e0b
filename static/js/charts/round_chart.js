// A figure by round: that of all devices as a strong line, each device as a thin one.
import { Card, segments } from "./card.js";
import { saveCsv, savePng } from "./export.js";
import { axis, look, tooltip, zoom } from "./options.js";
import { colourOf, dashOf } from "./page.js";

export class RoundChart {
  needs = "rounds";

  // `scores`: [{key, label}] to choose from; the first is shown at first. `task` says whose parts
  // hold a device's value, unless `of` finds it; `whole` finds that of all devices in a round,
  // null where no figure stands for all of them.
  constructor(page, options) {
    const { title, subtitle, scores, wide } = options;
    Object.assign(this, { page, task: "evaluate", wholeLabel: "Weighted mean", fromZero: false,
      whole: (round, key) => round.evaluation[key], ...options });
    this.score = scores[0];
    const choose = (score) => {
      this.score = score;
      this.draw();
    };
    this.card = new Card({ title, subtitle, wide, tools: scores.length > 1 ? [segments(title, scores, choose)] : [] });
    this.card.reset.addEventListener("click", () => this.unzoom());
    this.card.plot.addEventListener("dblclick", () => this.unzoom());
    this.card.onpng = () => savePng(this.card, page.devices, colourOf, dashOf);
    this.card.oncsv = () => saveCsv(this.card, ...this.table());
    this.card.ontable = () => this.fill();
    this.zoomTo = null;
  }

  unzoom() {
    this.zoomTo = null;
    this.card.zoomed(false);
    this.draw();
  }

  make() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "line",
      data: { datasets: [] },
      options: { parsing: false, interaction: { mode: "each", intersect: false } },
    });
    this.restyle();
  }

  restyle() {
    if (!this.chart) return;
    const paint = look();
    const { options } = this.chart;
    options.scales = {
      x: axis(paint, (value) => (Number.isInteger(value) ? (value ? `${value}` : "start") : ""), "round",
        { type: "linear", offset: false }),
      y: axis(paint, (value) => this.format(value), this.unit, { grace: "8%", beginAtZero: this.fromZero }),
    };
    options.scales.x.grid.display = false;
    options.scales.x.ticks.maxTicksLimit = 12;
    options.scales.x.ticks.precision = 0;
    options.plugins.tooltip = tooltip(paint, {
      title: (items) => (items.length ? (items[0].parsed.x ? `Round ${items[0].parsed.x}` : "Before training") : ""),
      label: (item) => ` ${item.dataset.label}: ${this.format(item.parsed.y)}`,
    });
    options.plugins.zoom = zoom(({ chart }) => {
      if (this.drawing) return;
      this.zoomTo = [chart.scales.x.min, chart.scales.x.max];
      this.card.zoomed(true);
    });
  }

  rounds() {
    const newest = new Map();
    for (const round of this.page.rounds) newest.set(round.number, round);
    return [...newest.values()];
  }

  mean() {
    if (!this.whole) return [];
    return this.rounds()
      .map((round) => ({ x: round.number, y: this.whole(round, this.score.key) }))
      .filter((point) => point.y != null);
  }

  value(round, slot) {
    if (this.of) return this.of(round, this.score.key, slot);
    const parts = round[this.task].filter((part) => part.slot === slot && part[this.score.key] != null);
    return parts.at(-1)?.[this.score.key];
  }

  line(slot) {
    return this.rounds()
      .map((round) => ({ x: round.number, y: this.value(round, slot) }))
      .filter((point) => point.y != null);
  }

  draw() {
    const mean = this.mean();
    const lines = this.page.devices.filter((device) => this.page.shows(device));
    if (!mean.length && !lines.some((device) => this.line(device.slot).length)) {
      return this.card.empty(this.nothing(this.page));
    }
    if (!this.chart) this.make();
    this.card.empty("");
    const whole = { label: this.wholeLabel, data: mean, borderColor: look().mean, backgroundColor: look().mean,
      borderWidth: 2.5, pointRadius: 3, order: 0, clip: 6 };
    this.chart.data.datasets = [
      ...(this.whole ? [whole] : []),
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
    this.fill();
  }

  table() {
    const head = ["Round", ...(this.whole ? [this.wholeLabel] : []), ...this.page.devices.map((device) => device.name)];
    const rows = this.rounds()
      .filter((round) => round.number || this.task === "evaluate")
      .map((round) => [String(round.number), ...(this.whole ? [this.whole(round, this.score.key)] : []),
        ...this.page.devices.map((device) => this.value(round, device.slot))]);
    return [head, rows];
  }

  fill() {
    if (!this.card.data.open) return;
    const [head, rows] = this.table();
    this.card.fill(head, rows.map(([number, ...values]) => [number === "0" ? "start" : number, ...values.map(this.format)]));
  }
}
