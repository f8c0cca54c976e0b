// The frame of a chart: title, subtitle with unit, menu, canvas, and the table behind it.
import { h, setText } from "../lib/dom.js";

function glyph(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

// A group of buttons, one of them pressed; `choices` are [{label}], `choose` gets the new one.
export function segments(name, choices, choose) {
  const buttons = choices.map((choice, i) => {
    const button = h("button", { type: "button", "aria-pressed": String(i === 0) }, choice.label);
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      choose(choice);
    });
    return button;
  });
  return h("div", { class: "segments", role: "group", "aria-label": name }, ...buttons);
}

let count = 0;

export class ChartCard {
  constructor({ title, subtitle = "", wide = false, tools = [] }) {
    const id = `chart-${(count += 1)}`;
    this.title = title;
    this.heading = h("h3", { id }, title);
    this.subtitle = h("p", {}, subtitle);
    this.canvas = h("canvas", { role: "img", "aria-labelledby": id });
    this.crosshair = h("div", { class: "crosshair", hidden: true });
    this.message = h("div", { class: "chart-message" }, "Loading …");
    this.plot = h("div", { class: "plot" }, this.canvas, this.crosshair, this.message);
    this.reset = h("button", { type: "button", class: "button tiny quiet", hidden: true }, "Reset zoom");
    this.table = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${title}, table` });
    this.data = h("details", { class: "data" }, h("summary", {}, "Table"), this.table);
    this.data.addEventListener("toggle", () => this.ontable?.());
    this.root = h(
      "section",
      { class: wide ? "panel chart wide" : "panel chart", "aria-labelledby": id },
      h("div", { class: "chart-head" }, h("div", {}, this.heading, this.subtitle), this.reset, ...tools, this.menu()),
      this.plot,
      this.data,
    );
  }

  menu() {
    const png = h("button", { type: "button" }, "Save as PNG");
    const csv = h("button", { type: "button" }, "Save as CSV");
    png.addEventListener("click", () => this.onpng?.());
    csv.addEventListener("click", () => this.oncsv?.());
    const menu = h(
      "details",
      { class: "menu" },
      h("summary", { class: "button quiet tiny only-icon", "aria-label": `Save the chart ${this.title}` },
        glyph("M8 2.5v8m-3-3 3 3 3-3M3 13.5h10")),
      h("div", { class: "menu-list" }, png, csv),
    );
    for (const item of [png, csv]) item.addEventListener("click", () => (menu.open = false));
    return menu;
  }

  setSubtitle(subtitle) {
    setText(this.subtitle, subtitle);
  }

  // Text in place of the plot while there is no data; the space stays the same.
  showMessage(text) {
    this.message.hidden = !text;
    setText(this.message, text || "");
    this.canvas.setAttribute("aria-hidden", String(Boolean(text)));
  }

  showReset(isZoomed) {
    this.reset.hidden = !isZoomed;
  }

  fillTable(header, rows) {
    const cells = (row) => row.map((cell, i) => h(i ? "td" : "th", i ? { class: "num" } : { scope: "row" }, cell));
    this.table.replaceChildren(
      h("table", {},
        h("caption", { class: "sr" }, this.title),
        h("thead", {}, h("tr", {}, ...header.map((cell, i) => h("th", { class: i ? "num" : "", scope: "col" }, cell)))),
        h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row))))),
    );
  }
}
