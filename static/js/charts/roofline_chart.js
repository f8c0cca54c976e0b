// A device's roofline, both axes logarithmic: the roof from its peak and bandwidth, its measured
// products as points, and its last training: a point where the planner knows its bytes, else a level.
import { percent, si, significant } from "../lib/format.js";
import { token } from "../lib/dom.js";
import { Card } from "./card.js";
import { saveCsv, savePng } from "./export.js";
import { axis, look, tooltip } from "./options.js";

const flops = (value) => si(value, "FLOP/s");
const isDecade = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-6;

// [low, high] around the values with room on both sides, at least a decade and a half each way.
function around(values, room) {
  return [Math.min(...values) / room, Math.max(...values) * room];
}

export class RooflineChart {
  needs = "device";

  constructor(page, told) {
    Object.assign(this, { page, told });
    this.card = new Card({ title: "Roofline", subtitle: this.words() });
    this.card.onpng = () => savePng(this.card, [], null, null);
    this.card.oncsv = () => saveCsv(this.card, ["what", "flop_per_byte", "flop_per_s"], this.rows());
    this.card.ontable = () => this.fill();
  }

  words() {
    const { precision, peak_flops: peak, bandwidth_bps: bandwidth, measured } = this.told;
    const axes = "FLOP per byte of memory traffic against FLOP/s; dots: measured products, triangle or dashes: last training";
    if (!peak || !bandwidth) return axes;
    const source = measured ? "measured" : "partly from the data sheet";
    return `${axes}; roof ${source}: ${flops(peak)} ${precision}, ${si(bandwidth, "B/s")}`;
  }

  rows() {
    const { points, training, ridge, peak_flops: peak } = this.told;
    const known = points.map((point) => [point.name, point.flops_per_byte, point.flops_per_s]);
    const job = training ? [[`last training, ${training.name}`, training.flops_per_byte, training.flops_per_s]] : [];
    return [...(ridge ? [["ridge", ridge, peak]] : []), ...known, ...job];
  }

  make() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "scatter",
      data: { datasets: [] },
      options: { interaction: { mode: "nearest", intersect: false } },
    });
    this.restyle();
  }

  restyle() {
    if (!this.chart) return;
    const paint = look();
    const { options } = this.chart;
    const tick = (format) => (value) => (isDecade(value) ? format(value) : "");
    options.scales = {
      x: axis(paint, tick((value) => significant(value, 1)), "FLOP per byte", { type: "logarithmic" }),
      y: axis(paint, tick(flops), "", { type: "logarithmic" }),
    };
    for (const scale of [options.scales.x, options.scales.y]) scale.ticks.maxTicksLimit = undefined;
    options.plugins.tooltip = tooltip(paint, {
      title: (items) => items[0]?.raw.name,
      label: ({ raw }) => ` ${flops(raw.y)}${raw.level ? "" : ` at ${significant(raw.x)} FLOP/byte`}${raw.note || ""}`,
    });
    options.plugins.tooltip.filter = (item) => Boolean(item.raw.name);
  }

  draw() {
    const { ridge, peak_flops: peak } = this.told;
    if (!ridge) return this.card.empty("Its peak or its memory bandwidth has not been measured.");
    if (!this.chart) this.make();
    this.card.empty("");
    const { points, training } = this.told;
    const [left, right] = around([ridge, ...points.map((point) => point.flops_per_byte), ...(training?.flops_per_byte ? [training.flops_per_byte] : [])], 4);
    const rates = [peak, ...points.map((point) => point.flops_per_s), ...(training ? [training.flops_per_s] : [])];
    const [low, high] = around(rates, 2.5);
    const { x, y } = this.chart.options.scales;
    [x.min, x.max, y.min, y.max] = [left, right, Math.min(low, (peak * left) / ridge), high];
    this.chart.data.datasets = this.datasets(left, right);
    this.chart.update("none");
    this.fill();
  }

  datasets(left, right) {
    const { ridge, peak_flops: peak, points, training } = this.told;
    const line = (label, data, colour, dash) => ({ label, data, type: "line", borderColor: colour,
      backgroundColor: colour, borderWidth: 2, borderDash: dash, pointRadius: 0, pointHitRadius: 8 });
    const roof = [
      { x: left, y: (peak * left) / ridge },
      { x: ridge, y: peak, name: "Ridge: memory limits to the left, arithmetic to the right" },
      { x: right, y: peak },
    ];
    return [
      line("roof", roof, token("--mean")),
      ...(training ? [this.training(training, left, right, line)] : []),
      { label: "products", backgroundColor: token("--device-2"), borderColor: token("--surface"), borderWidth: 1, pointRadius: 5,
        data: points.map((point) => ({ x: point.flops_per_byte, y: point.flops_per_s, name: point.name })) },
    ];
  }

  training({ name, flops_per_byte: x, flops_per_s: y, mfu }, left, right, line) {
    const share = mfu == null ? "" : `, MFU ${percent(mfu)}`;
    const job = { y, name: `Last training, ${name}`, note: `${share}${x ? "; bytes by the planner" : "; its bytes are not known"}` };
    const colour = token("--device-1");
    if (!x) return line("last training", [{ x: left, level: true, ...job }, { x: right, level: true, ...job }], colour, [5, 4]);
    return { label: "last training", data: [{ x, ...job }], backgroundColor: colour, borderColor: colour,
      pointStyle: "triangle", pointRadius: 8, pointHoverRadius: 9 };
  }

  fill() {
    if (!this.card.data.open) return;
    this.card.fill(["What", "FLOP per byte", "FLOP/s"],
      this.rows().map(([name, x, y]) => [name, x == null ? "not known" : significant(x), flops(y)]));
  }
}
