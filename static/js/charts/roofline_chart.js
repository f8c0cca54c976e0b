// A device's roofline on logarithmic axes: the roof from peak and bandwidth, measured kernels as
// points, and the latest training as a point, or as a level if its memory traffic is not known.
import { percent, si, significant } from "../lib/format.js";
import { token } from "../lib/dom.js";
import { ChartCard } from "./chart_card.js";
import { saveCsv, savePng } from "./chart_export.js";
import { axis, chartColours, tooltip } from "./chart_style.js";

const flops = (value) => si(value, "FLOP/s");
const isDecade = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-6;

// [low, high] of the values, with a margin factor on both sides.
function paddedRange(values, margin) {
  return [Math.min(...values) / margin, Math.max(...values) * margin];
}

export class RooflineChart {
  needs = "device";

  constructor(page, data) {
    Object.assign(this, { page, data });
    this.card = new ChartCard({ title: "Roofline", subtitle: this.subtitle() });
    this.card.onpng = () => savePng(this.card, [], null, null);
    this.card.oncsv = () => saveCsv(this.card, ["what", "flop_per_byte", "flop_per_s"], this.rows());
    this.card.ontable = () => this.fillTable();
  }

  subtitle() {
    const { precision, peak_flops: peak, bandwidth_bps: bandwidth, measured } = this.data;
    const axes = "FLOP/s over FLOP per byte of memory traffic; dots: measured kernels; triangle or dashed line: latest training";
    if (!peak || !bandwidth) return axes;
    const source = measured ? "measured" : "partly from the data sheet";
    return `${axes}; roof ${source}: ${flops(peak)} ${precision}, ${si(bandwidth, "B/s")}`;
  }

  rows() {
    const { points, training, ridge, peak_flops: peak } = this.data;
    const known = points.map((point) => [point.name, point.flops_per_byte, point.flops_per_s]);
    const job = training ? [[`latest training, ${training.name}`, training.flops_per_byte, training.flops_per_s]] : [];
    return [...(ridge ? [["ridge", ridge, peak]] : []), ...known, ...job];
  }

  create() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "scatter",
      data: { datasets: [] },
      options: { interaction: { mode: "nearest", intersect: false } },
    });
    this.restyle();
  }

  restyle() {
    if (!this.chart) return;
    const colours = chartColours();
    const { options } = this.chart;
    const tick = (format) => (value) => (isDecade(value) ? format(value) : "");
    options.scales = {
      x: axis(colours, tick((value) => significant(value, 1)), "FLOP per byte", { type: "logarithmic" }),
      y: axis(colours, tick(flops), "", { type: "logarithmic" }),
    };
    for (const scale of [options.scales.x, options.scales.y]) scale.ticks.maxTicksLimit = undefined;
    options.plugins.tooltip = tooltip(colours, {
      title: (items) => items[0]?.raw.name,
      label: ({ raw }) => ` ${flops(raw.y)}${raw.level ? "" : ` at ${significant(raw.x)} FLOP/byte`}${raw.note || ""}`,
    });
    options.plugins.tooltip.filter = (item) => Boolean(item.raw.name);
  }

  draw() {
    const { ridge, peak_flops: peak } = this.data;
    if (!ridge) return this.card.showMessage("Peak or memory bandwidth not measured yet.");
    if (!this.chart) this.create();
    this.card.showMessage("");
    const { points, training } = this.data;
    const [left, right] = paddedRange([ridge, ...points.map((point) => point.flops_per_byte), ...(training?.flops_per_byte ? [training.flops_per_byte] : [])], 4);
    const rates = [peak, ...points.map((point) => point.flops_per_s), ...(training ? [training.flops_per_s] : [])];
    const [low, high] = paddedRange(rates, 2.5);
    const { x, y } = this.chart.options.scales;
    [x.min, x.max, y.min, y.max] = [left, right, Math.min(low, (peak * left) / ridge), high];
    this.chart.data.datasets = this.datasets(left, right);
    this.chart.update("none");
    this.fillTable();
  }

  datasets(left, right) {
    const { ridge, peak_flops: peak, points, training } = this.data;
    const line = (label, data, colour, dash) => ({ label, data, type: "line", borderColor: colour,
      backgroundColor: colour, borderWidth: 2, borderDash: dash, pointRadius: 0, pointHitRadius: 8 });
    const roof = [
      { x: left, y: (peak * left) / ridge },
      { x: ridge, y: peak, name: "Ridge: limited by memory to the left, by arithmetic to the right" },
      { x: right, y: peak },
    ];
    return [
      line("roof", roof, token("--mean")),
      ...(training ? [this.training(training, left, right, line)] : []),
      { label: "kernels", backgroundColor: token("--device-2"), borderColor: token("--surface"), borderWidth: 1, pointRadius: 5,
        data: points.map((point) => ({ x: point.flops_per_byte, y: point.flops_per_s, name: point.name })) },
    ];
  }

  training({ name, flops_per_byte: x, flops_per_s: y, mfu }, left, right, line) {
    const share = mfu == null ? "" : `, MFU ${percent(mfu)}`;
    const job = { y, name: `Latest training, ${name}`, note: `${share}${x ? "; memory traffic estimated by the planner" : "; memory traffic not known"}` };
    const colour = token("--device-1");
    if (!x) return line("latest training", [{ x: left, level: true, ...job }, { x: right, level: true, ...job }], colour, [5, 4]);
    return { label: "latest training", data: [{ x, ...job }], backgroundColor: colour, borderColor: colour,
      pointStyle: "triangle", pointRadius: 8, pointHoverRadius: 9 };
  }

  fillTable() {
    if (!this.card.data.open) return;
    this.card.fillTable(["Point", "FLOP per byte", "FLOP/s"],
      this.rows().map(([name, x, y]) => [name, x == null ? "not known" : significant(x), flops(y)]));
  }
}
