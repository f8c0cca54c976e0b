// Gantt chart of one round: when each device waited, downloaded, trained, uploaded, evaluated.
import { duration } from "../lib/format.js";
import { h, setText, token } from "../lib/dom.js";
import { ChartCard } from "./chart_card.js";
import { saveCsv, savePng } from "./chart_export.js";
import { axis, chartColours, tickSeconds, timeStep, tooltip } from "./chart_style.js";

const PHASES = ["wait", "download", "train", "upload", "evaluate"];
const seconds = (iso, start) => (iso ? (Date.parse(iso) - start) / 1000 : null);

// Bars of one device, in seconds since the start of the round: [phase, from, to].
export function bars(round, slot, now) {
  const start = Date.parse(round.started_at);
  const end = seconds(round.ended_at, start) ?? (now - start) / 1000;
  const collected = seconds(round.collected_at, start) ?? end;
  const spans = [];
  for (const part of round.train.filter((item) => item.slot === slot)) {
    const accepted = seconds(part.accepted_at, start);
    const stopped = seconds(part.ended_at, start) ?? end;
    spans.push(["wait", seconds(part.offered_at, start), accepted ?? stopped]);
    if (accepted === null) continue;
    const trained = accepted + part.download_s;
    const sent = stopped - part.upload_s;
    spans.push(["download", accepted, Math.min(trained, stopped)]);
    spans.push(["train", trained, Math.max(trained, sent)]);
    if (part.upload_s) spans.push(["upload", sent, stopped]);
    if (part.ended_at) spans.push(["wait", stopped, Math.max(stopped, collected)]);
  }
  for (const part of round.evaluate.filter((item) => item.slot === slot)) {
    const accepted = seconds(part.accepted_at, start);
    if (accepted !== null) spans.push(["evaluate", accepted, seconds(part.ended_at, start) ?? end]);
  }
  return spans.filter(([, from, to]) => to - from > 0.01);
}

export class RoundTimeline {
  needs = "rounds";

  constructor(page) {
    this.page = page;
    this.chosenId = null; // null: the newest round
    this.label = h("span", { class: "small nowrap" }, "");
    this.mergedNote = h("span", {}, "");
    const step = (text, by) => {
      const button = h("button", { type: "button", class: "button tiny", "aria-label": `${text} round` }, by < 0 ? "‹" : "›");
      button.addEventListener("click", () => this.move(by));
      return button;
    };
    this.card = new ChartCard({ title: "Round timeline", wide: true,
      tools: [h("div", { class: "row" }, step("Previous", -1), this.label, step("Next", 1))] });
    this.card.subtitle.replaceChildren(...PHASES.map((phase) =>
      h("span", { class: "key", "data-phase": phase }, h("i"), phase)), "seconds since the start of the round ", this.mergedNote);
    this.card.setSubtitle = () => {};
    this.card.onpng = () => savePng(this.card, [], null, null);
    this.card.oncsv = () => saveCsv(this.card, ["device", "phase", "from_s", "to_s"], this.rows());
    this.card.ontable = () => this.fillTable();
  }

  startedRounds() {
    return this.page.rounds.filter((round) => round.started_at);
  }

  round() {
    const rounds = this.startedRounds();
    return rounds.find((round) => round.id === this.chosenId) || rounds.at(-1);
  }

  move(by) {
    const rounds = this.startedRounds();
    const at = Math.max(0, Math.min(rounds.length - 1, rounds.indexOf(this.round()) + by));
    this.chosenId = at === rounds.length - 1 ? null : rounds[at]?.id;
    this.draw();
  }

  rows() {
    const round = this.round();
    if (!round) return [];
    return this.page.devices.flatMap((device) =>
      bars(round, device.slot, Date.now()).map(([phase, from, to]) => [device.name, phase, from.toFixed(2), to.toFixed(2)]));
  }

  create() {
    this.chart = new window.Chart(this.card.canvas, {
      type: "bar",
      data: { labels: [], datasets: [] },
      options: { indexAxis: "y", interaction: { mode: "nearest", intersect: true } },
    });
    this.restyle();
  }

  restyle() {
    if (!this.chart) return;
    const colours = chartColours();
    const { options } = this.chart;
    options.scales = {
      x: axis(colours, tickSeconds, "", { type: "linear", min: 0 }),
      y: axis(colours, undefined, "", {}),
    };
    delete options.scales.y.ticks.callback;
    options.scales.y.ticks.maxTicksLimit = 60;
    options.scales.y.ticks.color = colours.text;
    options.scales.y.grid.display = false;
    options.plugins.tooltip = tooltip(colours, {
      label: ({ raw, dataset }) => ` ${dataset.label}: ${duration(raw.x[1] - raw.x[0])}`,
    });
  }

  draw() {
    const round = this.round();
    if (!round) return this.card.showMessage(this.page.endText || "The first round has not started.");
    setText(this.label, `${round.number ? `Round ${round.number}` : "Baseline evaluation"}${round.attempt > 1 ? `, attempt ${round.attempt}` : ""}`);
    const devices = this.page.devices.filter((device) => this.page.isShown(device));
    this.card.plot.style.height = `${Math.max(120, Math.min(900, 44 + 26 * devices.length))}px`;
    if (!this.chart) this.create();
    this.card.showMessage("");
    this.chart.data.labels = devices.map((device) => device.name);
    const all = devices.map((device) => bars(round, device.slot, Date.now()));
    this.chart.data.datasets = PHASES.map((phase) => ({
      label: phase,
      data: all.flatMap((spans, i) => spans.filter(([name]) => name === phase)
        .map(([, from, to]) => ({ x: [from, to], y: devices[i].name }))),
      backgroundColor: token(`--phase-${phase}`),
      grouped: false, barThickness: 14, borderSkipped: false, borderRadius: 1,
    }));
    this.chart.options.scales.x.ticks.stepSize = timeStep(Math.max(0, ...all.flat().map(([, , to]) => to)));
    this.chart.update("none");
    setText(this.mergedNote, this.mergedUpdates(round));
    this.fillTable();
  }

  // The updates merged into this version of an asynchronous job; others went into later versions.
  mergedUpdates(round) {
    const name = (slot) => this.page.devices.find((device) => device.slot === slot)?.name ?? `device ${slot}`;
    const age = ({ staleness }) => (staleness ? `${staleness} version${staleness > 1 ? "s" : ""} old` : "fresh");
    const parts = (round.updates || []).map((update) => `${name(update.slot)} (${age(update)})`);
    return parts.length ? `merged: ${parts.slice(0, 8).join(", ")}${parts.length > 8 ? ` and ${parts.length - 8} more` : ""}` : "";
  }

  fillTable() {
    if (!this.card.data.open) return;
    this.card.fillTable(["Device", "Phase", "From", "To"], this.rows().map(([name, phase, from, to]) =>
      [name, phase, duration(Number(from)), duration(Number(to))]));
  }
}
