// What each device is paid for and what its own training made of it; only where a job has rewards.
import { setText } from "../lib/dom.js";
import { paintSwatch } from "./legend.js";

const rows = new Map();
const points = (value) => (value == null ? "–" : value.toFixed(3).replace("-", "−"));
const bound = (value) => String(Number(value.toPrecision(4))).replace("-", "−");

export function showRewards(state) {
  const body = document.getElementById("reward-rows");
  if (!body) return;
  const paid = state.devices.filter((device) => device.reward);
  body.closest("table").hidden = paid.length === 0;
  document.getElementById("no-rewards").hidden = paid.length > 0;
  for (const device of paid) {
    if (!rows.has(device.id)) rows.set(device.id, body.appendChild(newRow(device)));
    fill(rows.get(device.id), device);
  }
  const newest = Math.max(0, ...paid.map((device) => device.reward.round || 0));
  const said = newest ? `of round ${newest}, the last that was evaluated` : "measured in the rounds that are evaluated";
  setText(document.querySelector('[data-job="rewards-round"]'), said);
}

function newRow(device) {
  const row = document.getElementById("reward-row").content.firstElementChild.cloneNode(true);
  setText(row.querySelector('[data-f="name"]'), device.name);
  return row;
}

function fill(row, { slot, reward }) {
  const set = (name, text) => setText(row.querySelector(`[data-f="${name}"]`), text);
  paintSwatch(row.querySelector(".swatch"), slot);
  set("of", reward.of);
  set("range", `from ${bound(reward.least)} to ${bound(reward.most)}`);
  set("before", points(reward.before));
  set("after", points(reward.after));
  const change = reward.before == null ? null : reward.after - reward.before;
  set("change", change > 0 ? `+${points(change)}` : points(change));
  set("sampled", points(reward.drawn));
}
