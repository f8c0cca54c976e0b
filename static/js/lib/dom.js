// DOM helpers: elements, texts, states, design tokens, file downloads.
import { capital } from "./format.js";

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (key in element && key !== "list" && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function json(id) {
  const element = document.getElementById(id);
  return element ? JSON.parse(element.textContent) : null;
}

// Writes only a changed text, which saves a layout.
export function setText(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

const TONES = {
  online: "good", busy: "live", offline: "idle", "never seen": "idle", revoked: "idle",
  draft: "idle", queued: "wait", running: "live", paused: "wait", completed: "good",
  failed: "bad", cancelled: "idle",
};

export function setState(element, word) {
  if (!element) return;
  element.classList.add("state");
  element.dataset.tone = TONES[word] || "idle";
  setText(element, word);
}

// The state of a device: amber where it is connected and cannot work, with the reason beside it.
export function setDeviceState(element, { presence, ability }) {
  setState(element, presence);
  const isConnected = presence === "online" || presence === "busy";
  if (element && isConnected && ability.blocks) element.dataset.tone = "wait";
}

// Why a device does no work (amber), or what else to mend on it.
export function setReason(element, { reason, blocks }) {
  element.hidden = !reason;
  element.dataset.tone = blocks ? "wait" : "";
  setText(element, capital(reason));
}

// What the site itself lacks, on every page.
export function showSite(texts) {
  const notice = document.getElementById("site-state");
  if (!notice || !texts) return;
  notice.hidden = texts.length === 0;
  setText(notice.querySelector("p"), texts.map((text) => `${capital(text)}.`).join(" "));
}

export const token = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export const fileName = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
