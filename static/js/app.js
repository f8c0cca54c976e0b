// What every page does: dialogs, menus, copying, times, keys, toasts, following the fleet.
import { ago } from "./lib/format.js";
import { setText } from "./lib/dom.js";
import { followFleet } from "./fleet.js";

const dialog = document.getElementById("confirm");

// Forms that destroy something ask first, naming the object and the consequence.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.confirm || form.dataset.sure) return;
  event.preventDefault();
  document.getElementById("confirm-title").textContent = form.dataset.confirm;
  document.getElementById("confirm-text").textContent = form.dataset.consequence;
  const yes = document.getElementById("confirm-yes");
  yes.textContent = form.dataset.verb;
  yes.classList.toggle("danger", !("calm" in form.dataset));
  dialog.returnValue = "no";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    form.dataset.sure = "yes";
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
  const was = button.dataset.label || label.textContent;
  button.dataset.label = was;
  try {
    await navigator.clipboard.writeText(source.textContent);
    label.textContent = "Copied";
  } catch {
    selectAll(source); // no clipboard over plain http: the text is selected for Ctrl-C
    label.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (label.textContent = was), 2000);
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
    const on = button.dataset.themeSet === window.edgewiseTheme.chosen();
    button.setAttribute("aria-pressed", String(on));
  }
}

function refreshTimes() {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    setText(element, ago(element.dateTime));
  }
}

// Buttons that act on chosen rows wait until one is chosen.
document.addEventListener("change", () => {
  for (const button of document.querySelectorAll("[data-needs]")) {
    const chosen = button.form.querySelectorAll(`[name="${button.dataset.needs}"]:checked`);
    button.disabled = chosen.length === 0;
  }
});

// A failed fragment request is said, not swallowed.
document.addEventListener("htmx:responseError", () => toast("The server refused this; reload the page."));
document.addEventListener("htmx:sendError", () => toast("The server does not answer."));

function toast(text) {
  const box = document.getElementById("toasts");
  if (box.textContent.includes(text)) return;
  const line = document.createElement("p");
  line.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.dataset.close = "";
  close.textContent = "Close";
  const item = document.createElement("div");
  item.className = "toast error";
  item.append(line, close);
  box.append(item);
  setTimeout(() => item.remove(), 8000);
}

for (const done of document.querySelectorAll(".toast.success")) setTimeout(() => done.remove(), 6000);
markTheme();
refreshTimes();
setInterval(refreshTimes, 1000);
if (document.querySelector("[data-live^='fleet']")) followFleet();
