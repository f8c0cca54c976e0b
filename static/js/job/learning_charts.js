// Charts of what the model learns: training loss, evaluation loss, ROUGE, aggregation error, rewards.
import { percent, significant } from "../lib/format.js";
import { RoundChart } from "../charts/round_chart.js";
import { TimeChart } from "../charts/time_chart.js";
import { afterEnd, afterFirstSample } from "./chart_messages.js";

export const learningCharts = (withThinningNote) => [
  [TimeChart, {
    title: "Training loss", subtitle: withThinningNote("nats per token, per device, not smoothed"), unit: "nats per token",
    metrics: [{ key: "loss" }], format: (v) => significant(v), emptyText: afterFirstSample, fromZero: false,
  }],
  [RoundChart, {
    title: "Evaluation loss", subtitle: "nats per token on each device's validation data; bold: mean weighted by examples",
    unit: "nats per token", scores: [{ key: "loss", label: "Loss" }], format: (v) => significant(v),
    emptyText: afterEnd("Shown after the first evaluation."),
  }],
  [RoundChart, {
    title: "ROUGE", subtitle: "F1 in percent of generated summaries; bold: mean weighted by examples", unit: "F1, %",
    scores: [{ key: "rougeL", label: "L" }, { key: "rouge1", label: "1" }, { key: "rouge2", label: "2" }],
    format: (v) => significant(v), emptyText: afterEnd("Shown after the first evaluation."),
  }],
  [RoundChart, {
    title: "Aggregation error", loraOnly: true, wide: true, subtitle: "of the aggregated adapters: ‖served − mean(s·B·A)‖ ÷ ‖mean(s·B·A)‖", unit: "",
    task: "train", scores: [{ key: "aggregation_error", label: "Error" }], format: percent, deviceValue: () => null,
    emptyText: afterEnd("Shown after the first round."), totalLabel: "All matrices",
    totalValue: (round) => round.aggregation_error, fromZero: true,
  }],
];

// For jobs with rewards. There is no mean over devices, since each has weights of its own.
export const rewardCharts = (withThinningNote) => [
  [TimeChart, {
    title: "Training reward", subtitle: withThinningNote("mean of the samples drawn so far in the round, by the device's own weights"), unit: "",
    metrics: [{ key: "reward" }], format: (v) => significant(v), emptyText: afterFirstSample, fromZero: false,
  }],
  [RoundChart, {
    title: "Validation reward", subtitle: "greedy summaries of each device's validation data, by its own weights", unit: "",
    task: "train", scores: [{ key: "reward_after", label: "After training" }, { key: "reward_before", label: "Received" }, { key: "change", label: "Change" }],
    deviceValue: rewardOf, format: (v) => significant(v), emptyText: afterEnd("Shown after the first evaluated round."), totalValue: null,
  }],
];

function rewardOf(round, key, slot) {
  const part = round.train.filter((item) => item.slot === slot && item.reward_after != null).at(-1);
  if (!part) return null;
  return key === "change" ? part.reward_after - part.reward_before : part[key];
}
