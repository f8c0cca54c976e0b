// Charts of the devices' hardware: MFU, throughput, energy efficiency, time by phase.
import { percent, si, significant } from "../lib/format.js";
import { PhaseChart } from "../charts/phase_chart.js";
import { TimeChart } from "../charts/time_chart.js";
import { afterFirstSample } from "./chart_messages.js";

export const hardwareCharts = (withThinningNote) => [
  [TimeChart, {
    title: "MFU", subtitle: peakSubtitle, unit: "", metrics: [{ key: "mfu" }],
    format: percent, emptyText: afterFirstSample,
  }],
  [TimeChart, {
    title: "Throughput", subtitle: withThinningNote("tokens per second, without padding"), unit: "tokens/s",
    metrics: [{ key: "tokens_per_s" }], format: (v) => si(v), emptyText: afterFirstSample,
  }],
  [TimeChart, {
    title: "Energy efficiency ηₑ", unit: "tokens/s/W", subtitle: efficiencySubtitle,
    metrics: [{ key: "eta_e" }, { key: "eta_e_estimated", label: "estimated", dash: [2, 3] }],
    format: (v) => significant(v),
    emptyText: (page) => (hasMetric(page, "tokens_per_s") ? "No power sensor on these devices." : afterFirstSample(page)),
  }],
  [PhaseChart],
];

// "% of 842 GFLOP/s bf16 measured", or each device's own peak where they differ.
function peakSubtitle(page) {
  const known = (page.peaks || []).filter((device) => device.peak_flops);
  if (!known.length) return "% of measured peak";
  const peaks = known.map((device) => `${si(device.peak_flops, "FLOP/s")} ${device.precision}`);
  if (new Set(peaks).size === 1) return `% of ${peaks[0]} measured`;
  if (known.length > 4) return "% of each device's own measured peak, see the device table";
  return `% of measured peak: ${known.map((device, i) => `${device.name} ${peaks[i]}`).join(", ")}`;
}

const hasMetric = (page, key) => page.devices.some((device) => page.store.has(device.id, key));

function efficiencySubtitle(page) {
  const text = "tokens per joule, per device";
  if (!hasMetric(page, "eta_e_estimated")) return text;
  return hasMetric(page, "eta_e") ? `${text}; dotted: estimated power` : `${text}; power estimated from data sheets`;
}
