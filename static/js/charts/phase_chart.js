// Stacked bars: seconds of each training phase, by device or by round.
import { duration, percent } from "../lib/format.js";
import { setText, h, token } from "../lib/dom.js";
import { ChartCard, segments } from "./chart_card.js";
import { saveCsv, savePng } from "./chart_export.js";
import { axis, chartColours, tickSeconds, timeStep, tooltip } from "./chart_style.js";

const MAX_BARS = 60;
const COMPUTING = ["load", "forward", "loss", "backward", "optimizer"];
// In order of time; "other" is training time without a measured phase.
export const PHASES = ["download", ...COMPUTING, "other", "upload", "wait"];
const BY = [{ key: "device", label: "By device" }, { key: "round", label: "By round" }];

const zeroPhases = () => Object.fromEntries(PHASES.map((phase) => [phase, 0]));

// Seconds by phase of a reported training.
function reportedPhases(part) {
  const seconds = zeroPhases();
  const phases = part.phase_s || {};
  for (const phase of COMPUTING) seconds[phase] = phases[phase] || 0;
  const known = COMPUTING.reduce((sum, phase) => sum + seconds[phase], 0);
  seconds.other = Math.max(0, part.compute_s - known);
  seconds.download = part.download_s;
  seconds.upload = part.upload_s;
  seconds.wait = part.wait_s;
  return seconds;
}

export class PhaseChart {
  needs = "rounds";

  constructor(page) {
    this.page = page;
    this.by = "device";
    this.all = true; // false: the newest round only
    const redrawAfter = (set) => (choice) => {
      set(choice.key);
      this.draw();
    };
    this.note = h("span", {}, "");
    this.card = new ChartCard({ title: "Where the time goes", wide: true, tools: [
      segments("Which rounds", [{ key: true, label: "All rounds" }, { key: false, label: "Newest" }], redrawAfter((key) => (this.all = key))),
      segments("Bars", BY, redrawAfter((key) => (this.by = key))),
    ] });
    this.card.subtitle.replaceChildren(
      ...PHASES.map((phase) => h("span", { class: "key", "data-training-phase": phase }, h("i"), phase)),
      "seconds of training work, ", this.note);
    this.card.setSubtitle = () => {};
    this.card.onpng = () => savePng(this.card, [], null, null);
    this.card.oncsv = () => saveCsv(this.card, [this.by, ...PHASES.map((phase) => `${phase}_s`)],
      this.bars().map(({ name, phases }) => [name, ...PHASES.map((phase) => phases[phase].toFixed(3))]));
    this.card.ontable = () => this.fillTable();
  }

  rounds() {
    const rounds = this.page.rounds.filter((round) => round.number);
    return this.all || this.by === "round" ? rounds : rounds.slice(-1);
  }

  // A device that is still training has not reported: the sums of its samples stand in.
  partsOf(round) {
    const parts = round.train.filter((part) => part.compute_s > 0)
      .map((part) => ({ slot: part.slot, phases: reportedPhases(part) }));
    for (const device of this.page.devices) {
      const live = this.page.livePhases?.get(device.id);
      const open = round.train.some((part) => part.slot === device.slot && !part.ended_at && !part.compute_s);
      if (open && live?.round === round.number) {
        parts.push({ slot: device.slot, phases: { ...zeroPhases(), ...live.phase_s } });
      }
    }
    return parts;
  }

  bars() {
    const bars = new Map();
    const add = (name, phases) => {
      if (!bars.has(name)) bars.set(name, zeroPhases());
      for (const phase of PHASES) bars.get(name)[phase] += phases[phase];
    };
    const names = new Map(this.page.devices.filter((device) => this.page.isShown(device)).map(({ slot, name }) => [slot, name]));
    for (const round of this.rounds()) {
      for (const { slot, phases } of this.partsOf(round)) {
        if (names.has(slot)) add(this.by === "device" ? names.get(slot) : `round ${round.number}`, phases);
      }
    }
    return [...bars].map(([name, phases]) => ({ name, phases })).slice(-MAX_BARS);
  }

  create() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "bar",
      data: { labels: [], datasets: [] },
      options: { indexAxis: "y", interaction: { mode: "index", intersect: false, axis: "y" } },
    });
    this.restyle();
  }

  restyle() {
    if (!this.chart) return;
    const colours = chartColours();
    const { options } = this.chart;
    options.scales = {
      x: axis(colours, tickSeconds, "", { stacked: true, beginAtZero: true }),
      y: axis(colours, undefined, "", { stacked: true }),
    };
    delete options.scales.y.ticks.callback;
    options.scales.y.ticks.maxTicksLimit = MAX_BARS;
    options.scales.y.ticks.color = colours.text;
    options.scales.y.grid.display = false;
    const sum = (items) => items.reduce((total, item) => total + item.raw, 0);
    options.plugins.tooltip = tooltip(colours, {
      label: (item) => {
        const total = this.chart.data.datasets.reduce((sum, set) => sum + set.data[item.dataIndex], 0);
        return ` ${item.dataset.label}: ${duration(item.raw)}, ${percent(item.raw / total)}`;
      },
      footer: (items) => `total ${duration(sum(items))}`,
    });
    options.plugins.tooltip.footerColor = colours.text;
    options.plugins.tooltip.filter = (item) => item.raw > 0;
  }

  draw() {
    const bars = this.bars();
    if (!bars.length) return this.card.showMessage(this.page.endText || "Appears once a device has measured a step.");
    this.card.plot.style.height = `${Math.max(120, Math.min(900, 44 + 26 * bars.length))}px`;
    if (!this.chart) this.create();
    this.card.showMessage("");
    this.chart.data.labels = bars.map(({ name }) => name);
    this.chart.data.datasets = PHASES.map((phase) => ({
      label: phase, data: bars.map(({ phases }) => phases[phase]), backgroundColor: token(`--training-${phase}`),
      maxBarThickness: 18, borderWidth: 0,
    }));
    const lengths = bars.map(({ phases }) => PHASES.reduce((sum, phase) => sum + phases[phase], 0));
    this.chart.options.scales.x.ticks.stepSize = timeStep(Math.max(...lengths));
    this.chart.update("none");
    const total = lengths.reduce((a, b) => a + b, 0);
    const computing = bars.reduce((sum, { phases }) => sum + COMPUTING.reduce((a, phase) => a + phases[phase], phases.other), 0);
    setText(this.note, `${percent(computing / total)} of them computing`);
    this.fillTable();
  }

  fillTable() {
    if (!this.card.data.open) return;
    this.card.fillTable([this.by === "device" ? "Device" : "Round", ...PHASES],
      this.bars().map(({ name, phases }) => [name, ...PHASES.map((phase) => duration(phases[phase]))]));
  }
}
