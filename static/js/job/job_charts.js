// Builds the charts of a job page, group by group, and the marks where rounds begin.
import { token } from "../lib/dom.js";
import { hardwareCharts } from "./hardware_charts.js";
import { learningCharts, rewardCharts } from "./learning_charts.js";
import { networkCharts } from "./network_charts.js";

const MAX_MARKS = 40;
const GROUPS = { learning: learningCharts, rewards: rewardCharts, hardware: hardwareCharts, network: networkCharts };

// `container(group)` is the element for a group's charts, null where the page has none.
export function addCharts(page, container) {
  const withThinningNote = (text) => () => (page.store.thinned ? `${text}; long history, extremes kept` : text);
  const isLora = "adapters" in document.getElementById("charts").dataset;
  for (const [group, charts] of Object.entries(GROUPS)) {
    if (!container(group)) continue;
    for (const [Chart, options] of charts(withThinningNote)) {
      if (options?.loraOnly && !isLora) continue;
      const chart = new Chart(page, options);
      container(group).append(chart.card.root);
      page.add(chart);
    }
  }
}

// A thin line where each round began; none where they would cover the chart.
export function roundMarks(page, from, to) {
  const starts = page.rounds
    .filter((round) => round.number && round.started_at)
    .map((round) => ({ ...round, at: Date.parse(round.started_at) }))
    .filter(({ at }) => at > from && at < to);
  if (starts.length > MAX_MARKS) return {};
  return Object.fromEntries(starts.map(({ id, number, at }) => [`r${id}`, {
    type: "line", xMin: at, xMax: at, borderColor: token("--line"), borderWidth: 1, drawTime: "beforeDatasetsDraw",
    label: { display: starts.length < 16, content: `r${number}`, position: "start", yAdjust: -2,
      backgroundColor: "transparent", color: token("--text-3"), font: { size: 10, weight: 400 }, padding: 2 },
  }]));
}
