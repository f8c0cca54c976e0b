// The page of one device: presence and charts as they come.
import { json } from "./lib/dom.js";
import { percent, si, significant, size } from "./lib/format.js";
import { LiveSocket } from "./lib/socket.js";
import { showDevice } from "./fleet.js";
import { setUp } from "./charts/options.js";
import { RooflineChart } from "./charts/roofline_chart.js";
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
  { title: "Power", subtitle: "watts; dotted: estimated from the data sheet", unit: "",
    metrics: [{ key: "watts" }, { key: "watts_estimated", label: "estimated", dash: [2, 3] }],
    format: (v) => si(v, "W"), nothing: "This device has no power sensor." },
  { title: "Energy efficiency ηₑ", subtitle: "tokens per second and watt; dotted: power estimated", unit: "tokens/s/W",
    metrics: [{ key: "eta_e" }, { key: "eta_e_estimated", label: "estimated", dash: [2, 3] }],
    format: (v) => significant(v), nothing: "This device has no power sensor." },
  { title: "Network rate", subtitle: "bytes per second at its sockets", unit: "",
    choices: [{ label: "In", metrics: [{ key: "net_down_bps" }] }, { label: "Out", metrics: [{ key: "net_up_bps" }] }],
    format: (v) => si(v, "B/s"), nothing },
]) {
  const chart = new TimeChart(page, options);
  place.append(chart.card.root);
  page.add(chart);
}

const roof = new RooflineChart(page, json("device-roofline"));
document.getElementById("roofline").append(roof.card.root);
page.add(roof);

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
