// The job page: one state, fed by the snapshot in the page and then by the socket.
import { json } from "./lib/dom.js";
import { LiveSocket } from "./lib/socket.js";
import { ChartPage } from "./charts/page.js";
import { setUp } from "./charts/options.js";
import { Store } from "./charts/store.js";
import { addCharts, roundMarks } from "./job/charts.js";
import { showDevices } from "./job/devices.js";
import { EventLog } from "./job/events.js";
import { showHead } from "./job/head.js";
import { showLegend } from "./job/legend.js";
import { showRewards } from "./job/rewards.js";

const id = document.querySelector("[data-job-page]").dataset.jobPage;
const state = { rounds: [] };
const rounds = new Map();
const store = new Store();
const log = new EventLog(document.getElementById("events"));

// Why a chart of a job that is over is empty; samples come with the first message.
const ENDED = {
  failed: "The job failed before a device measured this.",
  cancelled: "The job was cancelled before a device measured this.",
  completed: "No device measured this.",
};

setUp();
const page = new ChartPage(store);
page.rounds = [];
page.marks = (from, to) => roundMarks(page, from, to);
page.onisolate = () => showLegend(page);
page.onrestyle = () => render();
page.phases = new Map(); // device -> {assignment, round, phase_s} of what it trains now
page.over = json("job-snapshot").phase in ENDED ? "Loading …" : "";
addCharts(page, (group) => document.querySelector(`[data-charts="${group}"]`));

function merge(snapshot) {
  for (const round of snapshot.rounds || []) rounds.set(round.id, round);
  Object.assign(state, snapshot);
  state.rounds = [...rounds.values()].sort((a, b) => a.number - b.number || a.attempt - b.attempt);
  page.rounds = state.rounds;
  page.devices = state.devices.map(({ id: device, slot, name }) => ({ id: device, slot, name }));
  page.peaks = state.devices;
}

// Sums of the samples in one message: they go on, or begin anew with another assignment.
function addPhases(news = {}) {
  for (const [device, told] of Object.entries(news)) {
    const held = page.phases.get(Number(device));
    if (held?.assignment === told.assignment) {
      for (const [phase, seconds] of Object.entries(told.phase_s)) held.phase_s[phase] += seconds;
    } else page.phases.set(Number(device), told);
  }
}

function render(what) {
  showHead(state);
  showLegend(page);
  showDevices(state, store);
  showRewards(state);
  page.invalidate(what);
}

merge(json("job-snapshot"));
log.add(json("job-events"));
render();

new LiveSocket(`/ws/jobs/${id}/`, {
  cursors: () => ({ events: log.cursor, samples: store.cursors }),
  message(message) {
    merge(message.snapshot);
    log.add(message.events);
    addPhases(message.phase_s);
    store.ingest(message.samples);
    page.over = ENDED[state.phase] || "";
    store.thinned = store.thinned || message.thinned;
    for (const [device, seq] of Object.entries(message.cursors.samples)) {
      store.cursors[device] = Math.max(seq, store.cursors[device] || 0);
    }
    const { rounds: news, devices } = message.snapshot;
    render(news || devices ? undefined : "samples");
  },
});

// Bars of a round under way grow by themselves.
setInterval(() => {
  if (state.phase === "running" && !document.hidden) page.invalidate("rounds");
}, 1000);
