// The table of a job's devices: rows are made once and then only their texts change.
import { ago, percent, si, significant, size } from "../lib/format.js";
import { setState, setText } from "../lib/dom.js";
import { colourOf } from "../charts/page.js";
import { paintSwatch } from "./legend.js";

const SPARK_POINTS = 48;
const rows = new Map();

export function showDevices(state, store) {
  const body = document.getElementById("device-rows");
  sayEvenness(state.evenness);
  document.getElementById("no-devices").hidden = state.devices.length > 0;
  body.closest("table").hidden = state.devices.length === 0;
  for (const device of state.devices) {
    if (!rows.has(device.id)) rows.set(device.id, body.appendChild(newRow(device)));
    fill(rows.get(device.id), device, store);
  }
}

function newRow(device) {
  const row = document.getElementById("device-row").content.firstElementChild.cloneNode(true);
  const link = row.querySelector('[data-f="name"]');
  link.textContent = device.name;
  link.href = `/devices/${device.id}/`;
  return row;
}

function fill(row, device, store) {
  const set = (name, text) => setText(row.querySelector(`[data-f="${name}"]`), text);
  paintSwatch(row.querySelector(".swatch"), device.slot);
  setState(row.querySelector('[data-f="presence"]'), device.presence);
  const steps = device.steps ? `, step ${device.step} of ${device.steps}` : "";
  set("phase", `${device.task === "evaluate" && device.phase === "training" ? "evaluating" : device.phase}${steps}`);
  const away = device.presence === "offline" ? `last seen ${ago(device.last_seen_at)}` : "";
  set("reason", device.reason || away);
  set("tokens", si(store.last(device.id, "tokens_per_s")));
  set("loss", significant(store.last(device.id, "loss")));
  set("mfu", percent(store.last(device.id, "mfu")));
  set("peak", device.peak_flops ? `of ${si(device.peak_flops, "FLOP/s")} ${device.precision}` : "peak not measured");
  score(set, device.score);
  energy(set, device, store);
  traffic(set, device.traffic);
  set("share", percent(device.share));
  set("examples", work(device));
  spark(row.querySelector(".spark"), device, store);
}

// What it trains on, if it trains, and who folds its updates, if not the server.
function work(device) {
  const held = device.dataset ? `${device.examples} examples of ${device.dataset}` : "folds for others";
  return device.parent ? `${held}, folded by ${device.parent}` : held;
}

function energy(set, device, store) {
  const measured = store.last(device.id, "eta_e");
  const known = measured ?? store.last(device.id, "eta_e_estimated");
  set("eta", significant(known));
  const unit = measured == null ? "tokens/s/W, estimated" : "tokens/s/W";
  set("eta-unit", known == null ? "no power sensor" : unit);
}

// On the device's own validation part; "own" is a model that it keeps for itself.
function score(set, told) {
  set("score", told.rougeL == null ? "–" : told.rougeL.toFixed(1));
  const own = told.personal_rougeL;
  set("own", own == null ? "" : `own ${own.toFixed(1)} (${signed(own - told.rougeL)})`);
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;

function sayEvenness(even) {
  const line = document.querySelector('[data-job="fairness"]');
  if (!even) return setText(line, "");
  const { worst, worst_device: name, spread, jain } = even.shared;
  const parts = [`ROUGE-L: lowest ${worst.toFixed(1)} on ${name}, spread ${spread.toFixed(1)}, Jain ${jain.toFixed(3)}`];
  if (even.own) parts.push(`own models: lowest ${even.own.worst.toFixed(1)} on ${even.own.worst_device}, spread ${even.own.spread.toFixed(1)}, Jain ${even.own.jain.toFixed(3)}`);
  if (even.gain) parts.push(`they gain ${signed(even.gain.mean)} (${signed(even.gain.least)} to ${signed(even.gain.most)})`);
  return setText(line, parts.join("; "));
}

// Bytes of the whole job; G of the last round the device has reported.
function traffic(set, told) {
  set("down", told.down == null ? "–" : `↓ ${size(told.down)}`);
  set("up", told.up == null ? "" : `↑ ${size(told.up)}`);
  set("g", significant(told.granularity));
  set("g-round", told.granularity == null ? "" : `round ${told.round}`);
}

// Scaled to what it shows, yet never so far that a change below a tenth looks like a cliff.
function spark(svg, device, store) {
  if (!store.has(device.id, "tokens_per_s")) return;
  const all = store.series(device.id, "tokens_per_s").v;
  const known = all.slice(-4 * SPARK_POINTS).filter((v) => !Number.isNaN(v)).slice(-SPARK_POINTS);
  const most = Math.max(...known, 1e-9);
  const least = Math.min(...known, 0.6 * most);
  const step = 92 / Math.max(1, known.length - 1);
  const y = (v) => (21 - (18 * (v - least)) / (most - least)).toFixed(1);
  svg.style.color = colourOf(device.slot);
  const line = svg.querySelector("polyline");
  line.setAttribute("points", known.map((v, i) => `${(2 + i * step).toFixed(1)},${y(v)}`).join(" "));
}
