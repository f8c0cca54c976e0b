// The device table of a job: each row is created once, then only its texts change.
import { ago, percent, si, significant, size } from "../lib/format.js";
import { setDeviceState, setReason, setText } from "../lib/dom.js";
import { colourOf } from "../charts/chart_page.js";
import { paintSwatch } from "./chart_legend.js";

const SPARK_POINTS = 48;
const rows = new Map();
// Assignment phases in words; the others are shown as they are.
const ACTIVITIES = { "not asked": "not selected", reported: "update received", folded: "update merged" };

export function showDevices(state, store) {
  const body = document.getElementById("device-rows");
  showFairness(state.evenness);
  document.getElementById("no-devices").hidden = state.devices.length > 0;
  body.closest("table").hidden = state.devices.length === 0;
  for (const device of state.devices) {
    if (!rows.has(device.id)) rows.set(device.id, body.appendChild(newRow(device)));
    fill(rows.get(device.id), device, store);
  }
}

function newRow(device) {
  const row = document.getElementById("device-row").content.firstElementChild.cloneNode(true);
  const link = row.querySelector('[data-field="name"]');
  link.textContent = device.name;
  link.href = `/devices/${device.id}/`;
  return row;
}

function fill(row, device, store) {
  const set = (name, text) => setText(row.querySelector(`[data-field="${name}"]`), text);
  paintSwatch(row.querySelector(".swatch"), device.slot);
  setDeviceState(row.querySelector('[data-field="presence"]'), device);
  setReason(row.querySelector('[data-field="ability"]'), device.ability);
  const steps = device.steps ? `, step ${device.step} of ${device.steps}` : "";
  set("phase", `${activity(device)}${steps}`);
  const lastSeen = device.presence === "offline" ? `last seen ${ago(device.last_seen_at)}` : "";
  set("reason", device.reason || lastSeen);
  set("tokens", si(store.last(device.id, "tokens_per_s")));
  set("loss", significant(store.last(device.id, "loss")));
  set("mfu", percent(store.last(device.id, "mfu")));
  set("peak", device.peak_flops ? `of ${si(device.peak_flops, "FLOP/s")} ${device.precision}` : "peak not measured");
  showScore(set, device.score);
  showEfficiency(set, device, store);
  showTraffic(set, device.traffic);
  set("share", percent(device.share));
  set("examples", dataAndParent(device));
  drawSparkline(row.querySelector(".spark"), device, store);
}

function activity({ task, phase }) {
  if (task !== "evaluate") return ACTIVITIES[phase] || phase;
  return { training: "evaluating", reported: "evaluated" }[phase] || ACTIVITIES[phase] || phase;
}

// The dataset of a device that trains, and the head that aggregates its updates, if any.
function dataAndParent(device) {
  const data = device.dataset ? `${device.examples} examples of ${device.dataset}` : "aggregates for others";
  return device.parent ? `${data}, aggregated by ${device.parent}` : data;
}

function showEfficiency(set, device, store) {
  const measured = store.last(device.id, "eta_e");
  const known = measured ?? store.last(device.id, "eta_e_estimated");
  set("eta", significant(known));
  const unit = measured == null ? "tokens/s/W, estimated" : "tokens/s/W";
  set("eta-unit", known == null ? "no power sensor" : unit);
}

// ROUGE-L on the device's own validation data, by the shared and by its personalised model.
function showScore(set, { rougeL: shared, personal_rougeL: personal }) {
  set("score", shared == null ? "–" : shared.toFixed(1));
  set("personal", personal == null ? "" : `personalised ${personal.toFixed(1)} (${signed(personal - shared)})`);
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;

const fairnessText = ({ worst, worst_device: device, spread, jain }) =>
  `${worst.toFixed(1)} (${device}); std. dev. ${spread.toFixed(1)}; fairness (Jain) ${jain.toFixed(2)}`;

function showFairness(fairness) {
  const line = document.querySelector('[data-job="fairness"]');
  if (!fairness) return setText(line, "");
  const { shared, own: personal, gain } = fairness;
  const parts = [`Lowest ROUGE-L ${fairnessText(shared)}`];
  if (personal) parts.push(`personalised: lowest ${fairnessText(personal)}`);
  if (gain) parts.push(`gain from personalisation ${signed(gain.mean)} (${signed(gain.least)} to ${signed(gain.most)})`);
  return setText(line, parts.join("; "));
}

// Bytes of the whole job; G of the last round that the device reported.
function showTraffic(set, traffic) {
  set("down", traffic.down == null ? "–" : `↓ ${size(traffic.down)}`);
  set("up", traffic.up == null ? "" : `↑ ${size(traffic.up)}`);
  set("g", significant(traffic.granularity));
  set("g-round", traffic.granularity == null ? "" : `round ${traffic.round}`);
}

// The scale covers at least 40 % of the maximum, so that small changes do not look like cliffs.
function drawSparkline(svg, device, store) {
  if (!store.has(device.id, "tokens_per_s")) return;
  const values = store.series(device.id, "tokens_per_s").v;
  const known = values.slice(-4 * SPARK_POINTS).filter((v) => !Number.isNaN(v)).slice(-SPARK_POINTS);
  const most = Math.max(...known, 1e-9);
  const least = Math.min(...known, 0.6 * most);
  const step = 92 / Math.max(1, known.length - 1);
  const y = (v) => (21 - (18 * (v - least)) / (most - least)).toFixed(1);
  svg.style.color = colourOf(device.slot);
  const line = svg.querySelector("polyline");
  line.setAttribute("points", known.map((v, i) => `${(2 + i * step).toFixed(1)},${y(v)}`).join(" "));
}
