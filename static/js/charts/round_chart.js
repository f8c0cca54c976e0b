// A score by round: the weighted mean as a strong line, each device as a thin one.
import { h } from "../lib/dom.js";
import { Card } from "./card.js";
import { saveCsv, savePng } from "./export.js";
import { axis, look, tooltip, zoom } from "./options.js";
import { colourOf, dashOf } from "./page.js";

export class RoundChart {
  needs = "rounds";

  // `scores`: [{key, label}] to choose from; the first is shown at first.
  constructor(page, { title, subtitle, scores, format, unit, nothing }) {
    Object.assign(this, { page, scores, format, unit, nothing, subtitle });
    this.score = scores[0];
    this.card = new Card({ title, subtitle, tools: scores.length > 1 ? [this.choice()] : [] });
    this.card.reset.addEventListener("click", () => this.unzoom());
    this.card.plot.addEventListener("dblclick", () => this.unzoom());
    this.card.onpng = () => savePng(this.card, page.devices, colourOf, dashOf);
    this.card.oncsv = () => saveCsv(this.card, ...this.table());
    this.card.ontable = () => this.fill();
    this.zoomTo = null;
  }

  choice() {
    const buttons = this.scores.map((score) => {
      const button = h("button", { type: "button", "aria-pressed": String(score === this.score) }, score.label);
      button.addEventListener("click", () => {
        this.score = score;
        for (const one of buttons) one.setAttribute("aria-pressed", String(one === button));
        this.draw();
      });
      return button;
    });
    return h("div", { class: "segments", role: "group", "aria-label": "Score" }, ...buttons);
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
      y: axis(paint, (value) => this.format(value), this.unit, { grace: "8%" }),
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
    return this.rounds()
      .filter((round) => round.evaluation[this.score.key] != null)
      .map((round) => ({ x: round.number, y: round.evaluation[this.score.key] }));
  }

  line(slot) {
    return this.rounds().flatMap((round) => {
      const parts = round.evaluate.filter((part) => part.slot === slot && part[this.score.key] != null);
      return parts.length ? [{ x: round.number, y: parts.at(-1)[this.score.key] }] : [];
    });
  }

  draw() {
    const mean = this.mean();
    const lines = this.page.devices.filter((device) => this.page.shows(device));
    if (!mean.length && !lines.some((device) => this.line(device.slot).length)) {
      return this.card.empty(this.nothing);
    }
    if (!this.chart) this.make();
    this.card.empty("");
    this.chart.data.datasets = [
      { label: "Weighted mean", data: mean, borderColor: look().mean, backgroundColor: look().mean,
        borderWidth: 2.5, pointRadius: 3, order: 0, clip: 6 },
      ...lines.map(({ name, slot }) => ({
        label: name, data: this.line(slot), borderColor: colourOf(slot), backgroundColor: colourOf(slot),
        borderDash: dashOf(slot), borderWidth: 1.25, pointRadius: 2, order: 1, clip: 6,
      })),
    ];
    const x = this.chart.options.scales.x;
    const last = this.rounds().at(-1)?.number || 0;
    [x.min, x.max] = this.zoomTo || [Math.min(...mean.map((point) => point.x), 0), Math.max(1, last)];
    x.ticks.stepSize = x.max - x.min <= 12 ? 1 : undefined;
    this.drawing = true;
    this.chart.update("none");
    this.drawing = false;
    this.fill();
  }

  table() {
    const head = ["Round", "Weighted mean", ...this.page.devices.map((device) => device.name)];
    const rows = this.rounds().map((round) => {
      const of = (slot) => round.evaluate.filter((part) => part.slot === slot).at(-1)?.[this.score.key];
      return [String(round.number), round.evaluation[this.score.key], ...this.page.devices.map((d) => of(d.slot))];
    });
    return [head, rows];
  }

  fill() {
    if (!this.card.data.open) return;
    const [head, rows] = this.table();
    this.card.fill(head, rows.map(([number, ...values]) => [number === "0" ? "start" : number, ...values.map(this.format)]));
  }
}
