// Behaviour of every page: confirm dialogs, menus, copy buttons, relative times, keys, toasts.
import { ago } from "./lib/format.js";
import { setText } from "./lib/dom.js";
import { followFleet } from "./fleet_presence.js";

const dialog = document.getElementById("confirm");

// Destructive forms ask for confirmation, naming the object and the consequence.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.confirm || form.dataset.confirmed) return;
  event.preventDefault();
  document.getElementById("confirm-title").textContent = form.dataset.confirm;
  document.getElementById("confirm-text").textContent = form.dataset.consequence;
  document.getElementById("confirm-no").textContent = form.dataset.keep || "Cancel";
  const yes = document.getElementById("confirm-yes");
  yes.textContent = form.dataset.verb;
  yes.classList.toggle("danger", !("calm" in form.dataset));
  dialog.returnValue = "no";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    form.dataset.confirmed = "yes";
    form.requestSubmit();
  };
  dialog.showModal();
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-print]")) print();
  const target = event.target.closest("[data-copy], [data-close], [data-theme-set]");
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
  if (!target) return;
  if (target.dataset.copy) copy(target);
  if ("close" in target.dataset) target.closest(".toast").remove();
  if (target.dataset.themeSet) chooseTheme(target.dataset.themeSet);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  const filter = document.querySelector("[data-filter]");
  if (event.key === "/" && !typing && filter && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    filter.focus();
    filter.select();
  }
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
  if (event.target === filter) filter.blur();
});

async function copy(button) {
  const source = document.querySelector(button.dataset.copy);
  const label = button.lastChild;
  const original = button.dataset.label || label.textContent;
  button.dataset.label = original;
  try {
    await navigator.clipboard.writeText(source.textContent);
    label.textContent = "Copied";
  } catch {
    selectAll(source); // browsers offer no clipboard over plain HTTP
    label.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (label.textContent = original), 2000);
}

function selectAll(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

function chooseTheme(theme) {
  window.edgewiseTheme.choose(theme);
  markTheme();
}

function markTheme() {
  for (const button of document.querySelectorAll("[data-theme-set]")) {
    const isChosen = button.dataset.themeSet === window.edgewiseTheme.chosen();
    button.setAttribute("aria-pressed", String(isChosen));
  }
}

function refreshTimes() {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    setText(element, ago(element.dateTime));
  }
}

// Buttons for selected rows are disabled until a row is selected.
document.addEventListener("change", () => {
  for (const button of document.querySelectorAll("[data-needs]")) {
    const selected = button.form.querySelectorAll(`[name="${button.dataset.needs}"]:checked`);
    button.disabled = selected.length === 0;
  }
});

// A failed fragment request is reported.
document.addEventListener("htmx:responseError", () => toast("The server rejected the request. Reload the page."));
document.addEventListener("htmx:sendError", () => toast("The server is not responding."));

function toast(text) {
  const container = document.getElementById("toasts");
  if (container.textContent.includes(text)) return;
  const line = document.createElement("p");
  line.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.dataset.close = "";
  close.textContent = "Close";
  const item = document.createElement("div");
  item.className = "toast error";
  item.append(line, close);
  container.append(item);
  setTimeout(() => item.remove(), 8000);
}

for (const item of document.querySelectorAll(".toast.success")) setTimeout(() => item.remove(), 6000);
markTheme();
refreshTimes();
setInterval(refreshTimes, 1000);
if (document.querySelector("[data-live^='fleet']")) followFleet();
