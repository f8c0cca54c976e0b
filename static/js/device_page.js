// The device page: live presence, charts and the roofline.
import { json, showSite } from "./lib/dom.js";
import { percent, si, significant, size } from "./lib/format.js";
import { LiveSocket } from "./lib/live_socket.js";
import { showDevice } from "./fleet_presence.js";
import { configureCharts } from "./charts/chart_style.js";
import { RooflineChart } from "./charts/roofline_chart.js";
import { ChartPage } from "./charts/chart_page.js";
import { SampleStore } from "./charts/sample_store.js";
import { TimeChart } from "./charts/time_chart.js";

const root = document.querySelector("[data-device-page]");
const id = Number(root.dataset.devicePage);
const summary = json("device-summary");
const store = new SampleStore();
let eventCursor = 0;

configureCharts();
const page = new ChartPage(store);
page.devices = [{ id, slot: 0, name: summary.name }];
const container = document.getElementById("charts");
const emptyText = "No measurements yet.";

function peakSubtitle() {
  const value = store.last(id, "mfu_peak_flops");
  return value ? `% of ${si(value, "FLOP/s")}, the measured peak at this precision` : "% of the measured peak at this precision";
}

for (const options of [
  { title: "MFU", subtitle: peakSubtitle, unit: "", metrics: [{ key: "mfu" }], format: percent, emptyText },
  { title: "Throughput", subtitle: "tokens per second, without padding", unit: "tokens/s",
    metrics: [{ key: "tokens_per_s" }], format: (v) => si(v), emptyText },
  { title: "Memory", subtitle: "used by the agent; dashed: training peak", unit: "",
    metrics: [{ key: "memory_bytes", label: "now" }, { key: "peak_memory_bytes", label: "peak", dash: [6, 3] }], format: size, emptyText },
  { title: "Power", subtitle: "watts; dotted: estimated from the data sheet", unit: "",
    metrics: [{ key: "watts" }, { key: "watts_estimated", label: "estimated", dash: [2, 3] }],
    format: (v) => si(v, "W"), emptyText: "This device has no power sensor." },
  { title: "Energy efficiency ηₑ", subtitle: "tokens per joule; dotted: estimated power", unit: "tokens/s/W",
    metrics: [{ key: "eta_e" }, { key: "eta_e_estimated", label: "estimated", dash: [2, 3] }],
    format: (v) => significant(v), emptyText: "This device has no power sensor." },
  { title: "Network rate", subtitle: "bytes per second at its sockets", unit: "",
    choices: [{ label: "In", metrics: [{ key: "net_down_bps" }] }, { label: "Out", metrics: [{ key: "net_up_bps" }] }],
    format: (v) => si(v, "B/s"), emptyText },
]) {
  const chart = new TimeChart(page, options);
  container.append(chart.card.root);
  page.add(chart);
}

const roofline = new RooflineChart(page, json("device-roofline"));
document.getElementById("roofline").append(roofline.card.root);
page.add(roofline);

new LiveSocket(`/ws/devices/${id}/`, {
  cursors: () => ({ events: eventCursor, samples: store.cursors }),
  onmessage(message) {
    Object.assign(summary, message.snapshot);
    showDevice(summary, root);
    showSite(summary.site);
    store.ingest(message.samples);
    eventCursor = message.cursors.events;
    Object.assign(store.cursors, message.cursors.samples);
    page.invalidate();
  },
});
