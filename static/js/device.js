// The page of one device: presence and charts as they come.
import { json } from "./lib/dom.js";
import { percent, si, size } from "./lib/format.js";
import { LiveSocket } from "./lib/socket.js";
import { showDevice } from "./fleet.js";
import { setUp } from "./charts/options.js";
import { ChartPage } from "./charts/page.js";
import { Store } from "./charts/store.js";
import { TimeChart } from "./charts/time_chart.js";

const root = document.querySelector("[data-device-page]");
const id = Number(root.dataset.devicePage);
const head = json("device-head");
const store = new Store();
let event = 0;

setUp();
const page = new ChartPage(store);
page.devices = [{ id, slot: 0, name: head.name }];
const place = document.getElementById("charts");
const nothing = "It has measured nothing yet.";

function peak() {
  const value = store.last(id, "mfu_peak_flops");
  return value ? `% of ${si(value, "FLOP/s")}, the measured peak of the precision used` : "% of the measured peak of the precision used";
}

for (const options of [
  { title: "MFU", subtitle: peak, unit: "", metrics: [{ key: "mfu" }], format: percent, nothing },
  { title: "Throughput", subtitle: "tokens per second, padding not counted", unit: "tokens/s",
    metrics: [{ key: "tokens_per_s" }], format: (v) => si(v), nothing },
  { title: "Memory", subtitle: "of the agent; dashed: the peak of its training", unit: "",
    metrics: [{ key: "memory_bytes", label: "now" }, { key: "peak_memory_bytes", label: "peak", dash: [6, 3] }], format: size, nothing },
  { title: "Power", subtitle: "watts, where the hardware measures them", unit: "", metrics: [{ key: "watts" }],
    format: (v) => si(v, "W"), nothing: "This device reports no power measurement." },
  { title: "Network in", subtitle: "received, bytes per second", unit: "", metrics: [{ key: "net_down_bps" }],
    format: (v) => si(v, "B/s"), nothing },
  { title: "Network out", subtitle: "sent, bytes per second", unit: "", metrics: [{ key: "net_up_bps" }],
    format: (v) => si(v, "B/s"), nothing },
]) {
  const chart = new TimeChart(page, options);
  place.append(chart.card.root);
  page.add(chart);
}

new LiveSocket(`/ws/devices/${id}/`, {
  cursors: () => ({ events: event, samples: store.cursors }),
  message(message) {
    Object.assign(head, message.snapshot);
    showDevice(head, root);
    store.ingest(message.samples);
    event = message.cursors.events;
    Object.assign(store.cursors, message.cursors.samples);
    page.invalidate();
  },
});
