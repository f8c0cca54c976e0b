// Which charts a job page has.
import { percent, si, significant, size } from "../lib/format.js";
import { token } from "../lib/dom.js";
import { PhaseChart } from "../charts/phase_chart.js";
import { RoundChart } from "../charts/round_chart.js";
import { TimeChart } from "../charts/time_chart.js";
import { Timeline } from "../charts/timeline.js";

const rate = (value) => si(value, "B/s");
const MARKS = 40;

// "% of 842 GFLOP/s bf16 measured", or each device's own where there are several.
export function peaks(state) {
  const known = (state.peaks || []).filter((one) => one.peak_flops);
  if (!known.length) return "% of the measured peak";
  const words = known.map((one) => `${si(one.peak_flops, "FLOP/s")} ${one.precision}`);
  if (new Set(words).size === 1) return `% of ${words[0]} measured`;
  if (known.length > 4) return "% of each device's own measured peak, see the table of devices";
  return `% of the measured peak: ${known.map((one, i) => `${one.name} ${words[i]}`).join(", ")}`;
}

// What a chart without points says: a promise, while there is somebody to keep it.
const until = (text) => (page) => page.over || text;
const waiting = until("Points appear as soon as a device trains.");
const reported = until("Shown once a device has reported a round.");

const learning = (thinned) => [
  [TimeChart, {
    title: "Training loss", subtitle: thinned("nats per token, by device, not smoothed"), unit: "nats per token",
    metrics: [{ key: "loss" }], format: (v) => significant(v), nothing: waiting, fromZero: false,
  }],
  [RoundChart, {
    title: "Evaluation loss", subtitle: "nats per token on each device's validation part; bold: mean weighted by examples",
    unit: "nats per token", scores: [{ key: "loss", label: "Loss" }], format: (v) => significant(v),
    nothing: until("Shown after the first evaluation."),
  }],
  [RoundChart, {
    title: "ROUGE", subtitle: "F1 in percent of generated summaries; bold: mean weighted by examples", unit: "F1, %",
    scores: [{ key: "rougeL", label: "L" }, { key: "rouge1", label: "1" }, { key: "rouge2", label: "2" }],
    format: (v) => significant(v), nothing: until("Shown after the first evaluation."),
  }],
  [RoundChart, {
    title: "Aggregation error", adapters: true, wide: true, subtitle: "of the served adapters: ‖served − mean(s·B·A)‖ ÷ ‖mean(s·B·A)‖", unit: "",
    task: "train", scores: [{ key: "aggregation_error", label: "Error" }], format: percent, of: () => null,
    nothing: until("Shown after the first round."), wholeLabel: "All matrices", whole: (round) => round.aggregation_error, fromZero: true,
  }],
];

// Of devices that learn from rewards. No mean of them: each has weights of its own.
const rewards = (thinned) => [
  [TimeChart, {
    title: "Reward of the samples", subtitle: thinned("mean of what each device drew so far in its round, by its own weights"), unit: "",
    metrics: [{ key: "reward" }], format: (v) => significant(v), nothing: waiting, fromZero: false,
  }],
  [RoundChart, {
    title: "Own reward", subtitle: "greedy summaries of its validation part, by its own weights", unit: "",
    task: "train", scores: [{ key: "reward_after", label: "After training" }, { key: "reward_before", label: "Received" }, { key: "change", label: "Change" }],
    of: reward, format: (v) => significant(v), nothing: until("Shown after the first round that is evaluated."), whole: null,
  }],
];

const hardware = (thinned) => [
  [TimeChart, {
    title: "MFU", subtitle: (page) => peaks(page), unit: "", metrics: [{ key: "mfu" }],
    format: percent, nothing: waiting,
  }],
  [TimeChart, {
    title: "Throughput", subtitle: thinned("tokens per second, padding not counted"), unit: "tokens/s",
    metrics: [{ key: "tokens_per_s" }], format: (v) => si(v), nothing: waiting,
  }],
  [TimeChart, {
    title: "Energy efficiency ηₑ", unit: "tokens/s/W",
    subtitle: (page) => efficiency(page),
    metrics: [{ key: "eta_e" }, { key: "eta_e_estimated", label: "estimated", dash: [2, 3] }],
    format: (v) => significant(v), nothing: (page) => (any(page, "tokens_per_s") ? "No power sensor on these devices." : waiting(page)),
  }],
  [PhaseChart],
];

const network = (thinned) => [
  [TimeChart, {
    title: "Network rate", subtitle: thinned("bytes per second of each device, at its sockets"), unit: "",
    choices: [{ label: "In", metrics: [{ key: "net_down_bps" }] }, { label: "Out", metrics: [{ key: "net_up_bps" }] }],
    format: rate, nothing: waiting,
  }],
  [RoundChart, {
    title: "Bytes by round", subtitle: "of each device, training and evaluation; bold: all together", unit: "", of: total,
    scores: [{ key: "bytes_down", label: "Down" }, { key: "bytes_up", label: "Up" }], format: size, nothing: reported,
    wholeLabel: "All devices", whole: total, fromZero: true,
  }],
  [RoundChart, {
    title: "Granularity G", subtitle: "seconds computing ÷ seconds sending and receiving; bold: all devices together",
    unit: "G, s per s", task: "train", scores: [{ key: "granularity", label: "G" }], format: (v) => significant(v),
    nothing: reported, wholeLabel: "All devices", whole: (round) => round.granularity, fromZero: true,
  }],
  [Timeline],
];

// Of one device, or of all; evaluations count as well, since they fetch the new model.
function total(round, key, slot) {
  const mine = [...round.train, ...round.evaluate].filter((part) => slot === undefined || part.slot === slot);
  const known = mine.map((part) => part[key]).filter((value) => value != null);
  return known.length ? known.reduce((a, b) => a + b, 0) : null;
}

function reward(round, key, slot) {
  const part = round.train.filter((one) => one.slot === slot && one.reward_after != null).at(-1);
  if (!part) return null;
  return key === "change" ? part.reward_after - part.reward_before : part[key];
}

const any = (page, key) => page.devices.some((device) => page.store.has(device.id, key));

function efficiency(page) {
  const text = "tokens per second and watt, by device";
  if (!any(page, "eta_e_estimated")) return text;
  return any(page, "eta_e") ? `${text}; dotted: power estimated` : `${text}; power estimated from data sheets, not measured`;
}

// `place(group)` is the box the charts of a group go into, where the page has one; some charts are
// for jobs with adapters alone.
export function addCharts(page, place) {
  const thinned = (text) => () => (page.store.thinned ? `${text}; long history, extremes kept` : text);
  for (const [group, make] of Object.entries({ learning, rewards, hardware, network })) {
    if (!place(group)) continue;
    for (const [Kind, options] of make(thinned)) {
      if (options?.adapters && !("adapters" in document.getElementById("charts").dataset)) continue;
      const chart = new Kind(page, options);
      place(group).append(chart.card.root);
      page.add(chart);
    }
  }
}

// A thin line where each round began.
export function roundMarks(page, from, to) {
  const begun = page.rounds.filter((round) => round.number && round.started_at);
  const shown = begun.filter((round) => {
    const at = Date.parse(round.started_at);
    return at > from && at < to;
  });
  if (shown.length > MARKS) return {};
  return Object.fromEntries(shown.map((round) => [`r${round.id}`, {
    type: "line", xMin: Date.parse(round.started_at), xMax: Date.parse(round.started_at),
    borderColor: token("--line"), borderWidth: 1, drawTime: "beforeDatasetsDraw",
    label: { display: shown.length < 16, content: `r${round.number}`, position: "start", yAdjust: -2,
      backgroundColor: "transparent", color: token("--text-3"), font: { size: 10, weight: 400 }, padding: 2 },
  }]));
}
