// One metric of one device over time: raw points, and a view thinned to what a screen can show.
// A view keeps the lowest and highest point of each bucket; it never averages.
const MAX_POINTS = 20000;
const MIN_GAP_MS = 10000;

export class MetricSeries {
  constructor() {
    this.t = [];
    this.v = [];
    this.version = 0;
    // Points up to coarseUntil are thinned by the server, to this distance.
    this.coarseMs = 0;
    this.coarseUntil = -Infinity;
  }

  get length() {
    return this.t.length;
  }

  push(time, value, spanS = 0) {
    if (spanS) {
      this.coarseMs = Math.max(this.coarseMs, 1000 * spanS);
      this.coarseUntil = Math.max(this.coarseUntil, time);
    }
    const last = this.t.length - 1;
    if (last >= 0 && time <= this.t[last]) {
      if (time === this.t[last]) return;
      return this.insert(time, value);
    }
    this.t.push(time);
    this.v.push(value);
    this.version += 1;
    if (this.t.length > MAX_POINTS) this.compact();
  }

  insert(time, value) {
    const at = lowerBound(this.t, time);
    if (this.t[at] === time) return;
    this.t.splice(at, 0, time);
    this.v.splice(at, 0, value);
    this.version += 1;
    this.cache = null;
  }

  // Ends the line here, for example between two rounds.
  breakLine() {
    const last = this.t.length - 1;
    if (last >= 0 && !Number.isNaN(this.v[last])) this.push(this.t[last] + 1, NaN);
  }

  get last() {
    for (let i = this.v.length - 1; i >= 0; i--) if (!Number.isNaN(this.v[i])) return this.v[i];
    return null;
  }

  // Six times the usual distance between points: a longer pause is shown as a gap.
  gapLength() {
    if (this.gapMeasuredAt && this.t.length < 2 * this.gapMeasuredAt) return this.gapMs;
    const steps = [];
    for (let i = Math.max(1, this.t.length - 200); i < this.t.length; i++) {
      steps.push(this.t[i] - this.t[i - 1]);
    }
    steps.sort((a, b) => a - b);
    this.gapMs = Math.max(MIN_GAP_MS, 6 * (steps[steps.length >> 1] || 0));
    this.gapMeasuredAt = Math.max(4, this.t.length);
    this.cache = null;
    return this.gapMs;
  }

  // Whether the line breaks before a point.
  breaksBefore(at, gap) {
    const coarse = this.t[at - 1] <= this.coarseUntil ? 6 * this.coarseMs : 0;
    return this.t[at] - this.t[at - 1] > Math.max(gap, coarse);
  }

  // Points of [from, to], about `limit` at most, NaN where the line breaks.
  view(from, to, limit) {
    const gap = this.gapLength();
    let width = 250;
    while ((to - from) / width > limit / 2) width *= 2;
    if (!this.cache || this.cache.width !== width) this.cache = { width, out: [], next: 0, closed: 0 };
    const cache = this.cache;
    cache.out.length = cache.closed;
    appendBuckets(this, cache, gap);
    return clip(cache.out, from, to);
  }

  // Thins the older half of a very long series to half its points, keeping extremes.
  compact() {
    const half = this.t.length >> 1;
    const t = [];
    const v = [];
    for (let i = 0; i < half; i += 4) {
      let low = i;
      let high = i;
      for (let j = i; j < Math.min(i + 4, half); j++) {
        if (this.v[j] < this.v[low]) low = j;
        if (this.v[j] > this.v[high]) high = j;
      }
      for (const j of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
        t.push(this.t[j]);
        v.push(this.v[j]);
      }
    }
    this.t = t.concat(this.t.slice(half));
    this.v = v.concat(this.v.slice(half));
    this.cache = null;
  }
}

// Appends buckets to the cache; the last one stays open and is recomputed by the next view.
function appendBuckets(series, cache, gap) {
  const { t, v } = series;
  let i = cache.next;
  while (i < t.length) {
    const bucket = Math.floor(t[i] / cache.width);
    const start = i;
    let low = i;
    let high = i;
    let end = i + 1;
    for (; end < t.length; end++) {
      if (Math.floor(t[end] / cache.width) !== bucket) break;
      if (Number.isNaN(v[end]) || Number.isNaN(v[start]) || series.breaksBefore(end, gap)) break;
      if (v[end] < v[low]) low = end;
      if (v[end] > v[high]) high = end;
    }
    if (end === t.length) {
      cache.next = start;
      cache.closed = cache.out.length;
    }
    if (start > 0 && series.breaksBefore(start, gap)) pushGap(cache.out, t[start] - 1);
    pushExtremes(cache.out, t, v, low, high);
    i = end;
  }
}

function pushExtremes(out, t, v, low, high) {
  const [first, second] = low < high ? [low, high] : [high, low];
  out.push({ x: t[first], y: v[first] });
  if (second !== first) out.push({ x: t[second], y: v[second] });
}

function pushGap(out, x) {
  if (out.length && !Number.isNaN(out[out.length - 1].y)) out.push({ x, y: NaN });
}

function clip(points, from, to) {
  let start = 0;
  let end = points.length;
  while (start < end && points[start].x < from) start += 1;
  while (end > start && points[end - 1].x > to) end -= 1;
  return points.slice(Math.max(0, start - 1), end + 1);
}

function lowerBound(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
