// Which charts a job page has.
import { percent, si, significant } from "../lib/format.js";
import { token } from "../lib/dom.js";
import { RoundChart } from "../charts/round_chart.js";
import { TimeChart } from "../charts/time_chart.js";
import { Timeline } from "../charts/timeline.js";
import { WorkChart } from "../charts/work_chart.js";

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

export function addCharts(page, place) {
  const thinned = (text) => () => (page.store.thinned ? `${text}; long history, extremes kept` : text);
  const waiting = "Points appear as soon as a device trains.";
  const charts = [
    new TimeChart(page, {
      title: "Training loss", subtitle: thinned("nats per token, by device, not smoothed"), unit: "nats per token",
      metrics: [{ key: "loss" }], format: (v) => significant(v), nothing: waiting, fromZero: false,
    }),
    new RoundChart(page, {
      title: "Evaluation loss", subtitle: "nats per token on each device's validation part; bold: mean weighted by examples",
      unit: "nats per token", scores: [{ key: "loss", label: "Loss" }], format: (v) => significant(v),
      nothing: "Shown after the first evaluation.",
    }),
    new RoundChart(page, {
      title: "ROUGE", subtitle: "F1 in percent of generated summaries; bold: mean weighted by examples", unit: "F1, %",
      scores: [{ key: "rougeL", label: "L" }, { key: "rouge1", label: "1" }, { key: "rouge2", label: "2" }],
      format: (v) => significant(v), nothing: "Shown after the first evaluation.",
    }),
    new TimeChart(page, {
      title: "MFU", subtitle: () => peaks(page), unit: "", metrics: [{ key: "mfu" }],
      format: percent, nothing: waiting,
    }),
    new TimeChart(page, {
      title: "Throughput", subtitle: thinned("tokens per second, padding not counted"), unit: "tokens/s",
      metrics: [{ key: "tokens_per_s" }], format: (v) => si(v), nothing: waiting,
    }),
    new TimeChart(page, {
      title: "Network in", subtitle: thinned("received by each device, bytes per second"), unit: "",
      metrics: [{ key: "net_down_bps" }], format: rate, nothing: waiting,
    }),
    new TimeChart(page, {
      title: "Network out", subtitle: thinned("sent by each device, bytes per second"), unit: "",
      metrics: [{ key: "net_up_bps" }], format: rate, nothing: waiting,
    }),
    new WorkChart(page),
    new Timeline(page),
  ];
  for (const chart of charts) {
    place.append(chart.card.root);
    page.add(chart);
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
