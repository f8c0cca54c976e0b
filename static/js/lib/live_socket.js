// A WebSocket that reconnects, requests what it missed, and shows when its data is stale.
import { clock } from "./format.js";
import { h } from "./dom.js";

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 15000;
const SILENCE_MS = 30000; // the server sends a heartbeat every ten seconds
const SHOW_LOST_AFTER_MS = 1500;

export class LiveSocket {
  constructor(path, { cursors, onmessage }) {
    this.path = path;
    this.cursors = cursors;
    this.onmessage = onmessage;
    this.lastMessageAt = Date.now();
    this.retryMs = FIRST_RETRY_MS;
    this.lostAt = 0;
    this.stopped = false;
    addEventListener("online", () => this.open());
    addEventListener("pagehide", () => this.stop());
    addEventListener("pageshow", (event) => event.persisted && this.restart());
    setInterval(() => this.check(), 1000);
    this.open();
  }

  open() {
    if (this.stopped || (this.socket && this.socket.readyState < 2)) return;
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}${this.path}`);
    this.socket = socket;
    socket.onopen = () => {
      this.lastMessageAt = Date.now();
      socket.send(JSON.stringify({ cursors: this.cursors() }));
    };
    socket.onmessage = (event) => {
      this.lastMessageAt = Date.now();
      this.retryMs = FIRST_RETRY_MS;
      this.lostAt = 0;
      this.showStatus("");
      const message = JSON.parse(event.data);
      if (message.type === "error") this.showStatus(message.message);
      else if (message.type === "update") this.onmessage(message);
    };
    socket.onclose = (event) => this.socket === socket && this.onClose(event.code);
  }

  onClose(code) {
    if (this.stopped) return;
    this.lostAt = this.lostAt || Date.now();
    if (code === 4404) {
      this.stopped = true;
      this.showStatus("This item has been deleted.");
      return;
    }
    if (code === 4401 || code === 1006) this.checkSession();
    this.retryAt = Date.now() + this.retryMs * (0.75 + Math.random() / 2);
    this.timer = setTimeout(() => this.open(), this.retryAt - Date.now());
    this.retryMs = Math.min(MAX_RETRY_MS, this.retryMs * 2);
  }

  async checkSession() {
    try {
      const response = await fetch(location.href, { method: "HEAD", redirect: "manual" });
      if (response.type !== "opaqueredirect") return;
    } catch {
      return; // the server is down; the timer retries
    }
    this.stopped = true;
    clearTimeout(this.timer);
    this.showStatus("You are logged out.", ["Log in again", () => location.reload()]);
  }

  check() {
    if (this.stopped) return;
    const open = this.socket && this.socket.readyState === 1;
    if (open && Date.now() - this.lastMessageAt > SILENCE_MS) this.socket.close();
    if (!this.lostAt || Date.now() - this.lostAt < SHOW_LOST_AFTER_MS) return;
    const secondsLeft = Math.max(0, Math.round((this.retryAt - Date.now()) / 1000));
    const retry = secondsLeft ? ` Retrying in ${secondsLeft} s.` : " Retrying.";
    this.showStatus(`Connection lost, showing data until ${clock(this.lastMessageAt)}.${retry}`, [
      "Retry now", () => this.open(),
    ]);
  }

  showStatus(text, action) {
    const box = document.getElementById("link-state");
    if (!box) return;
    box.hidden = !text;
    document.documentElement.toggleAttribute("data-stale", Boolean(text));
    const line = box.querySelector("p");
    if (line.dataset.text === text) return;
    line.dataset.text = text;
    line.textContent = `${text} `;
    if (action) {
      const button = h("button", { type: "button", class: "button tiny" }, action[0]);
      button.addEventListener("click", action[1]);
      line.append(button);
    }
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    if (this.socket) this.socket.close();
  }

  restart() {
    this.stopped = false;
    this.open();
  }
}
