// Where the time goes: seconds of each phase, stacked, by device or by round.
import { duration, percent } from "../lib/format.js";
import { setText, h, token } from "../lib/dom.js";
import { Card, segments } from "./card.js";
import { saveCsv, savePng } from "./export.js";
import { axis, look, tickS, timeStep, tooltip } from "./options.js";

const SHOWN = 60;
const COMPUTING = ["load", "forward", "loss", "backward", "optimizer"];
// In the order in which they happen; "other" is training time that no phase was measured for.
export const PHASES = ["download", ...COMPUTING, "other", "upload", "wait"];
const BY = [{ key: "device", label: "By device" }, { key: "round", label: "By round" }];

const nothing = () => Object.fromEntries(PHASES.map((phase) => [phase, 0]));

// Seconds by phase of one training that has been reported.
function reported(part) {
  const found = nothing();
  const phases = part.phase_s || {};
  for (const phase of COMPUTING) found[phase] = phases[phase] || 0;
  const known = COMPUTING.reduce((sum, phase) => sum + found[phase], 0);
  found.other = Math.max(0, part.compute_s - known);
  found.download = part.download_s;
  found.upload = part.upload_s;
  found.wait = part.wait_s;
  return found;
}

export class PhaseChart {
  needs = "rounds";

  constructor(page) {
    this.page = page;
    this.by = "device";
    this.all = true; // or the newest round alone
    const again = (set) => (choice) => {
      set(choice.key);
      this.draw();
    };
    this.note = h("span", {}, "");
    this.card = new Card({ title: "Where the time goes", wide: true, tools: [
      segments("Which rounds", [{ key: true, label: "All rounds" }, { key: false, label: "Newest" }], again((key) => (this.all = key))),
      segments("Bars", BY, again((key) => (this.by = key))),
    ] });
    this.card.subtitle.replaceChildren(
      ...PHASES.map((phase) => h("span", { class: "key", "data-part": phase }, h("i"), phase)),
      "seconds spent on trainings, ", this.note);
    this.card.say = () => {};
    this.card.onpng = () => savePng(this.card, [], null, null);
    this.card.oncsv = () => saveCsv(this.card, [this.by, ...PHASES.map((phase) => `${phase}_s`)],
      this.bars().map(({ name, phases }) => [name, ...PHASES.map((phase) => phases[phase].toFixed(3))]));
    this.card.ontable = () => this.fill();
  }

  rounds() {
    const found = this.page.rounds.filter((round) => round.number);
    return this.all || this.by === "round" ? found : found.slice(-1);
  }

  // A device under way has reported nothing yet: what its samples add up to stands in.
  partsOf(round) {
    const parts = round.train.filter((part) => part.compute_s > 0)
      .map((part) => ({ slot: part.slot, phases: reported(part) }));
    for (const device of this.page.devices) {
      const live = this.page.phases?.get(device.id);
      const open = round.train.some((part) => part.slot === device.slot && !part.ended_at && !part.compute_s);
      if (open && live?.round === round.number) {
        parts.push({ slot: device.slot, phases: { ...nothing(), ...live.phase_s } });
      }
    }
    return parts;
  }

  bars() {
    const bars = new Map();
    const add = (name, phases) => {
      if (!bars.has(name)) bars.set(name, nothing());
      for (const phase of PHASES) bars.get(name)[phase] += phases[phase];
    };
    const names = new Map(this.page.devices.filter((one) => this.page.shows(one)).map(({ slot, name }) => [slot, name]));
    for (const round of this.rounds()) {
      for (const { slot, phases } of this.partsOf(round)) {
        if (names.has(slot)) add(this.by === "device" ? names.get(slot) : `round ${round.number}`, phases);
      }
    }
    return [...bars].map(([name, phases]) => ({ name, phases })).slice(-SHOWN);
  }

  make() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "bar",
      data: { labels: [], datasets: [] },
      options: { indexAxis: "y", interaction: { mode: "index", intersect: false, axis: "y" } },
    });
    this.restyle();
  }

  restyle() {
    if (!this.chart) return;
    const paint = look();
    const { options } = this.chart;
    options.scales = {
      x: axis(paint, tickS, "", { stacked: true, beginAtZero: true }),
      y: axis(paint, undefined, "", { stacked: true }),
    };
    delete options.scales.y.ticks.callback;
    options.scales.y.ticks.maxTicksLimit = SHOWN;
    options.scales.y.ticks.color = paint.text;
    options.scales.y.grid.display = false;
    const sum = (items) => items.reduce((total, item) => total + item.raw, 0);
    options.plugins.tooltip = tooltip(paint, {
      label: (item) => {
        const whole = this.chart.data.datasets.reduce((total, set) => total + set.data[item.dataIndex], 0);
        return ` ${item.dataset.label}: ${duration(item.raw)}, ${percent(item.raw / whole)}`;
      },
      footer: (items) => `in all ${duration(sum(items))}`,
    });
    options.plugins.tooltip.footerColor = paint.text;
    options.plugins.tooltip.filter = (item) => item.raw > 0;
  }

  draw() {
    const bars = this.bars();
    if (!bars.length) return this.card.empty(this.page.over || "Shown as soon as a device has measured a step.");
    this.card.plot.style.height = `${Math.max(120, Math.min(900, 44 + 26 * bars.length))}px`;
    if (!this.chart) this.make();
    this.card.empty("");
    this.chart.data.labels = bars.map(({ name }) => name);
    this.chart.data.datasets = PHASES.map((phase) => ({
      label: phase, data: bars.map(({ phases }) => phases[phase]), backgroundColor: token(`--part-${phase}`),
      maxBarThickness: 18, borderWidth: 0,
    }));
    const lengths = bars.map(({ phases }) => PHASES.reduce((sum, phase) => sum + phases[phase], 0));
    this.chart.options.scales.x.ticks.stepSize = timeStep(Math.max(...lengths));
    this.chart.update("none");
    const whole = lengths.reduce((a, b) => a + b, 0);
    const inside = bars.reduce((sum, { phases }) => sum + COMPUTING.reduce((a, phase) => a + phases[phase], phases.other), 0);
    setText(this.note, `${percent(inside / whole)} of them computing`);
    this.fill();
  }

  fill() {
    if (!this.card.data.open) return;
    this.card.fill([this.by === "device" ? "Device" : "Round", ...PHASES],
      this.bars().map(({ name, phases }) => [name, ...PHASES.map((phase) => duration(phases[phase]))]));
  }
}
