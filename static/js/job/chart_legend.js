// The legend of all charts: a click isolates a device, another click shows all again.
import { h } from "../lib/dom.js";
import { colourOf, dashOf } from "../charts/chart_page.js";

const SVG = "http://www.w3.org/2000/svg";

export function paintSwatch(svg, slot) {
  const line = svg.querySelector("line");
  line.style.stroke = colourOf(slot);
  line.setAttribute("stroke-dasharray", dashOf(slot).join(" "));
}

function swatch(slot) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("viewBox", "0 0 18 4");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "line");
  for (const [key, value] of Object.entries({ x1: 0, y1: 2, x2: 18, y2: 2 })) line.setAttribute(key, value);
  svg.append(line);
  paintSwatch(svg, slot);
  return svg;
}

export function showLegend(page) {
  const box = document.getElementById("legend");
  const names = page.devices.map((device) => device.name).join("\n");
  if (box.dataset.names !== names) {
    box.dataset.names = names;
    box.replaceChildren(...page.devices.map((device) => {
      const button = h("button", { type: "button", "aria-pressed": "false" }, swatch(device.slot), device.name);
      button.dataset.id = device.id;
      button.addEventListener("click", () => page.isolate(device.id));
      return button;
    }));
  }
  box.hidden = !page.devices.length;
  box.classList.toggle("isolated", page.isolated !== null);
  page.devices.forEach((device, i) => {
    const button = box.children[i];
    button.setAttribute("aria-pressed", String(page.isolated === device.id));
    paintSwatch(button.querySelector("svg"), device.slot);
  });
}
