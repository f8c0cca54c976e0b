// Charts of traffic and rounds: network rate, bytes per round, compute over network time, timeline.
import { si, significant, size } from "../lib/format.js";
import { RoundChart } from "../charts/round_chart.js";
import { RoundTimeline } from "../charts/round_timeline.js";
import { TimeChart } from "../charts/time_chart.js";
import { afterFirstRound, afterFirstSample } from "./chart_messages.js";

export const networkCharts = (withThinningNote) => [
  [TimeChart, {
    title: "Network rate", subtitle: withThinningNote("bytes per second at each device's sockets"), unit: "",
    choices: [{ label: "In", metrics: [{ key: "net_down_bps" }] }, { label: "Out", metrics: [{ key: "net_up_bps" }] }],
    format: (value) => si(value, "B/s"), emptyText: afterFirstSample,
  }],
  [RoundChart, {
    title: "Bytes per round", subtitle: "per device, training and evaluation; bold: total", unit: "", deviceValue: bytesOf,
    scores: [{ key: "bytes_down", label: "Down" }, { key: "bytes_up", label: "Up" }], format: size, emptyText: afterFirstRound,
    totalLabel: "All devices", totalValue: bytesOf, fromZero: true,
  }],
  [RoundChart, {
    title: "Compute : network (G)", subtitle: "seconds computing ÷ seconds sending and receiving; bold: all devices",
    unit: "G, s per s", task: "train", scores: [{ key: "granularity", label: "G" }], format: (v) => significant(v),
    emptyText: afterFirstRound, totalLabel: "All devices", totalValue: (round) => round.granularity, fromZero: true,
  }],
  [RoundTimeline],
];

// Bytes of one device, or of all without a slot; evaluations count, since they fetch the new model.
function bytesOf(round, key, slot) {
  const parts = [...round.train, ...round.evaluate].filter((part) => slot === undefined || part.slot === slot);
  const known = parts.map((part) => part[key]).filter((value) => value != null);
  return known.length ? known.reduce((a, b) => a + b, 0) : null;
}
