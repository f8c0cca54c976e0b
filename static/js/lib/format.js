// Numbers with units for people; the counterpart of webapp/common/units.py.
export const NONE = "–";
const SI = ["", "k", "M", "G", "T", "P", "E"];

export function significant(value, digits = 3) {
  if (value === 0) return "0";
  if (value == null || !Number.isFinite(value)) return NONE;
  const rounded = Number(value.toPrecision(digits));
  if (Math.abs(rounded) >= 1e6) return value.toExponential(digits - 1);
  const whole = Math.floor(Math.log10(Math.abs(rounded))) + 1;
  const places = Math.min(12, Math.max(0, digits - whole));
  const text = rounded.toLocaleString("en-US", {
    minimumFractionDigits: places,
    maximumFractionDigits: places,
  });
  return text.replace("-", "−");
}

export function si(value, unit = "") {
  if (value == null || !Number.isFinite(value)) return NONE;
  if (value === 0) return `0 ${unit}`.trim();
  let power = Math.max(0, Math.floor(Math.log10(Math.abs(value)) / 3));
  power = Math.min(SI.length - 1, power);
  if (Math.abs(value) / 1000 ** power >= 999.5 && power < SI.length - 1) power += 1;
  return `${significant(value / 1000 ** power)} ${SI[power]}${unit}`.trim();
}

export const size = (bytes) =>
  bytes != null && Math.abs(bytes) < 1000 ? `${Math.round(bytes)} B` : si(bytes, "B");

export const percent = (share) => (share == null ? NONE : `${significant(100 * share)} %`);

export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return NONE;
  if (seconds > 0 && seconds < 0.0995) return `${significant(1000 * seconds, 2)} ms`;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  const total = Math.round(seconds);
  if (total < 90) return `${total} s`;
  if (total < 5400) return `${Math.round(total / 60)} min`;
  if (total < 172800) {
    const minutes = Math.round(total / 60);
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  }
  const hours = Math.round(total / 3600);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function coarse(seconds) {
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 1.5 * length) return `${Math.round(seconds / length)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

export function ago(iso, now = Date.now()) {
  if (!iso) return "never";
  const seconds = (now - Date.parse(iso)) / 1000;
  if (Math.abs(seconds) > 30 * 86400) return iso.slice(0, 10);
  if (seconds >= -2 && seconds < 3) return "just now";
  return seconds < 0 ? `in ${coarse(-seconds)}` : `${coarse(seconds)} ago`;
}

export const clock = (ms) =>
  new Date(ms).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const capital = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");
