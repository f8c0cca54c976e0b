// The job page: one state, fed by the snapshot in the page and then by the socket.
import { json, showSite } from "./lib/dom.js";
import { LiveSocket } from "./lib/live_socket.js";
import { ChartPage } from "./charts/chart_page.js";
import { configureCharts } from "./charts/chart_style.js";
import { SampleStore } from "./charts/sample_store.js";
import { addCharts, roundMarks } from "./job/job_charts.js";
import { showDevices } from "./job/device_table.js";
import { EventLog } from "./job/event_log.js";
import { showHeader } from "./job/job_header.js";
import { showLegend } from "./job/chart_legend.js";
import { showRewards } from "./job/reward_table.js";

const id = document.querySelector("[data-job-page]").dataset.jobPage;
const state = { rounds: [] };
const rounds = new Map();
const store = new SampleStore();
const log = new EventLog(document.getElementById("events"));

// Why a chart of a finished job is empty; its samples arrive with the first message.
const END_TEXTS = {
  failed: "The job failed before a device measured this.",
  cancelled: "The job was cancelled before a device measured this.",
  completed: "No device measured this.",
};

configureCharts();
const page = new ChartPage(store);
page.rounds = [];
page.annotations = (from, to) => roundMarks(page, from, to);
page.onisolate = () => showLegend(page);
page.onrestyle = () => render();
page.livePhases = new Map(); // device id -> {assignment, round, phase_s} of its current training
page.endText = json("job-snapshot").phase in END_TEXTS ? "Loading …" : "";
addCharts(page, (group) => document.querySelector(`[data-charts="${group}"]`));

function merge(snapshot) {
  for (const round of snapshot.rounds || []) rounds.set(round.id, round);
  Object.assign(state, snapshot);
  state.rounds = [...rounds.values()].sort((a, b) => a.number - b.number || a.attempt - b.attempt);
  page.rounds = state.rounds;
  page.devices = state.devices.map(({ id: device, slot, name }) => ({ id: device, slot, name }));
  page.peaks = state.devices;
}

// Seconds by phase of the samples in one message: added up until the device's next assignment.
function addPhases(updates = {}) {
  for (const [device, update] of Object.entries(updates)) {
    const sums = page.livePhases.get(Number(device));
    if (sums?.assignment === update.assignment) {
      for (const [phase, seconds] of Object.entries(update.phase_s)) sums.phase_s[phase] += seconds;
    } else page.livePhases.set(Number(device), update);
  }
}

function render(dirty) {
  showSite(state.site);
  showHeader(state);
  showLegend(page);
  showDevices(state, store);
  showRewards(state);
  page.invalidate(dirty);
}

merge(json("job-snapshot"));
log.add(json("job-events"));
render();

new LiveSocket(`/ws/jobs/${id}/`, {
  cursors: () => ({ events: log.cursor, samples: store.cursors }),
  onmessage(message) {
    merge(message.snapshot);
    log.add(message.events);
    addPhases(message.phase_s);
    store.ingest(message.samples);
    page.endText = END_TEXTS[state.phase] || "";
    store.thinned = store.thinned || message.thinned;
    for (const [device, seq] of Object.entries(message.cursors.samples)) {
      store.cursors[device] = Math.max(seq, store.cursors[device] || 0);
    }
    const { rounds: changedRounds, devices } = message.snapshot;
    render(changedRounds || devices ? undefined : "samples");
  },
});

// Bars of a running round grow on their own.
setInterval(() => {
  if (state.phase === "running" && !document.hidden) page.invalidate("rounds");
}, 1000);
