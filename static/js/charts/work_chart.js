// Computation against communication of each round, with their ratio G above the bar.
import { duration, significant } from "../lib/format.js";
import { token } from "../lib/dom.js";
import { Card } from "./card.js";
import { saveCsv, savePng } from "./export.js";
import { axis, look, tooltip } from "./options.js";

const SHOWN = 60;
const PARTS = [
  { key: "compute_s", label: "Computation", colour: "--phase-train" },
  { key: "communication_s", label: "Communication", colour: "--phase-upload" },
];

// G as a number over each stack.
const ratios = {
  id: "ratios",
  afterDatasetsDraw(chart) {
    const { ctx } = chart;
    const bars = chart.getDatasetMeta(1).data;
    if (bars.length > 24) return;
    ctx.save();
    ctx.fillStyle = token("--text-2");
    ctx.font = `600 11px ${token("--sans")}`;
    ctx.textAlign = "center";
    bars.forEach((bar, i) => {
      const ratio = chart.options.ratios[i];
      if (ratio != null) ctx.fillText(significant(ratio, 2), bar.x, Math.min(bar.y, chart.getDatasetMeta(0).data[i].y) - 6);
    });
    ctx.restore();
  },
};

export class WorkChart {
  needs = "rounds";

  constructor(page) {
    this.page = page;
    this.card = new Card({
      title: "Computation and communication",
      subtitle: "device-seconds of each round; the number is granularity G = computation ÷ communication",
    });
    this.card.onpng = () => savePng(this.card, [], null, null);
    this.card.oncsv = () => saveCsv(this.card, ["round", "computation_s", "communication_s", "G"],
      this.rounds().map((r) => [r.number, r.compute_s, r.communication_s, r.granularity]));
    this.card.ontable = () => this.fill();
  }

  make() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "bar",
      data: { labels: [], datasets: [] },
      options: { interaction: { mode: "index", intersect: false }, layout: { padding: { top: 16 } } },
      plugins: [ratios],
    });
    this.restyle();
  }

  restyle() {
    if (!this.chart) return;
    const paint = look();
    const { options } = this.chart;
    options.scales = {
      x: axis(paint, undefined, "round", { stacked: true }),
      y: axis(paint, duration, "", { stacked: true, beginAtZero: true }),
    };
    delete options.scales.x.ticks.callback;
    options.scales.x.grid.display = false;
    options.plugins.tooltip = tooltip(paint, {
      title: (items) => (items.length ? `Round ${items[0].label}` : ""),
      label: (item) => ` ${item.dataset.label}: ${duration(item.raw)}`,
      footer: (items) => (items.length ? `G ${significant(options.ratios[items[0].dataIndex])}` : ""),
    });
    options.plugins.tooltip.footerColor = paint.text;
  }

  rounds() {
    return this.page.rounds.filter((round) => round.number && round.compute_s > 0).slice(-SHOWN);
  }

  draw() {
    const rounds = this.rounds();
    if (!rounds.length) return this.card.empty("Shown once the devices of a round have reported.");
    if (!this.chart) this.make();
    this.card.empty("");
    this.chart.data.labels = rounds.map((r) => (r.attempt > 1 ? `${r.number} (${r.attempt})` : String(r.number)));
    this.chart.data.datasets = PARTS.map(({ key, label, colour }) => ({
      label, data: rounds.map((round) => round[key]), backgroundColor: token(colour),
      maxBarThickness: 44, borderRadius: 2,
    }));
    this.chart.options.ratios = rounds.map((round) => round.granularity);
    this.chart.update("none");
    this.fill();
  }

  fill() {
    if (!this.card.data.open) return;
    this.card.fill(["Round", "Computation", "Communication", "G"], this.rounds().map((r) => [
      String(r.number), duration(r.compute_s), duration(r.communication_s), significant(r.granularity)]));
  }
}
