// Saves a chart as PNG with its title and legend, or its data as CSV.
import { fileName, save, token } from "../lib/dom.js";

const PAD = 24;

export function savePng(card, devices, colourOf, dashOf) {
  const plot = card.canvas;
  const scale = plot.width / plot.clientWidth;
  const rows = Math.ceil(devices.length / 5);
  const canvas = document.createElement("canvas");
  canvas.width = plot.width + 2 * PAD * scale;
  canvas.height = plot.height + (2 * PAD + 48 + rows * 20) * scale;
  const draw = canvas.getContext("2d");
  draw.scale(scale, scale);
  draw.fillStyle = token("--surface");
  draw.fillRect(0, 0, canvas.width, canvas.height);
  draw.fillStyle = token("--text");
  draw.font = `600 15px ${token("--sans")}`;
  draw.fillText(card.title, PAD, PAD + 8);
  draw.fillStyle = token("--text-3");
  draw.font = `12px ${token("--sans")}`;
  draw.fillText(card.subtitle.textContent, PAD, PAD + 26);
  draw.drawImage(plot, PAD, PAD + 40, plot.clientWidth, plot.clientHeight);
  devices.forEach((device, i) => {
    const x = PAD + (i % 5) * ((plot.clientWidth - 8) / 5);
    const y = PAD + 60 + plot.clientHeight + Math.floor(i / 5) * 20;
    draw.strokeStyle = colourOf(device.slot);
    draw.lineWidth = 3;
    draw.setLineDash(dashOf(device.slot));
    draw.beginPath();
    draw.moveTo(x, y - 4);
    draw.lineTo(x + 18, y - 4);
    draw.stroke();
    draw.fillText(device.name, x + 24, y);
  });
  canvas.toBlob((blob) => save(blob, `${fileName(document.title)}-${fileName(card.title)}.png`));
}

export function saveCsv(card, header, rows) {
  const cell = (value) => {
    const text = value == null ? "" : String(value);
    const safe = /^[=+@\-]/.test(text) && !Number.isFinite(Number(text)) ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const text = [header, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
  const blob = new Blob([text], { type: "text/csv" });
  save(blob, `${fileName(document.title)}-${fileName(card.title)}.csv`);
}
