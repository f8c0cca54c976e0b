// The samples of a page as series by device and metric, with the cursors for a reconnect.
import { MetricSeries } from "./metric_series.js";

export class SampleStore {
  constructor() {
    this.devices = new Map(); // id -> Map(metric -> Series)
    this.cursors = {};
    this.parts = new Map(); // id -> "round/task" of the newest sample
    this.thinned = false;
    this.from = Infinity;
    this.to = -Infinity;
  }

  ingest(samples) {
    for (const sample of samples) {
      if (sample.seq <= (this.cursors[sample.device] || 0)) continue;
      this.cursors[sample.device] = sample.seq;
      const time = Date.parse(sample.at);
      this.from = Math.min(this.from, time);
      this.to = Math.max(this.to, time);
      this.breakBetweenParts(sample);
      for (const [metric, value] of Object.entries(sample.values)) {
        this.series(sample.device, metric).push(time, value, sample.span_s);
      }
    }
  }

  // Each round and task is a line of its own: nothing was measured in between.
  breakBetweenParts(sample) {
    const part = `${sample.round}/${sample.task}`;
    if (this.parts.get(sample.device) === part) return;
    this.parts.set(sample.device, part);
    for (const series of this.metricsOf(sample.device).values()) series.breakLine();
  }

  metricsOf(device) {
    if (!this.devices.has(device)) this.devices.set(device, new Map());
    return this.devices.get(device);
  }

  series(device, metric) {
    const metrics = this.metricsOf(device);
    if (!metrics.has(metric)) metrics.set(metric, new MetricSeries());
    return metrics.get(metric);
  }

  has(device, metric) {
    return this.devices.get(device)?.has(metric) || false;
  }

  last(device, metric) {
    return this.has(device, metric) ? this.series(device, metric).last : null;
  }
}
