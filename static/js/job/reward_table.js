// The reward table of a job: each device's reward before and after its training.
import { setText } from "../lib/dom.js";
import { paintSwatch } from "./chart_legend.js";

const rows = new Map();
const rewardText = (value) => (value == null ? "–" : value.toFixed(3).replace("-", "−"));
const boundText = (value) => String(Number(value.toPrecision(4))).replace("-", "−");

export function showRewards(state) {
  const body = document.getElementById("reward-rows");
  if (!body) return;
  const rewarded = state.devices.filter((device) => device.reward);
  body.closest("table").hidden = rewarded.length === 0;
  document.getElementById("no-rewards").hidden = rewarded.length > 0;
  for (const device of rewarded) {
    if (!rows.has(device.id)) rows.set(device.id, body.appendChild(newRow(device)));
    fill(rows.get(device.id), device);
  }
  const newest = Math.max(0, ...rewarded.map((device) => device.reward.round || 0));
  const text = newest ? `in round ${newest}, the last evaluated one` : "measured in evaluated rounds";
  setText(document.querySelector('[data-job="rewards-round"]'), text);
}

function newRow(device) {
  const row = document.getElementById("reward-row").content.firstElementChild.cloneNode(true);
  setText(row.querySelector('[data-field="name"]'), device.name);
  return row;
}

function fill(row, { slot, reward }) {
  const set = (name, text) => setText(row.querySelector(`[data-field="${name}"]`), text);
  paintSwatch(row.querySelector(".swatch"), slot);
  set("of", reward.of);
  set("range", `from ${boundText(reward.least)} to ${boundText(reward.most)}`);
  set("before", rewardText(reward.before));
  set("after", rewardText(reward.after));
  const change = reward.before == null ? null : reward.after - reward.before;
  set("change", change > 0 ? `+${rewardText(change)}` : rewardText(change));
  set("sampled", rewardText(reward.drawn));
}
