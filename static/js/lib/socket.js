// A socket that comes back by itself, asks for what it missed, and says when it is stale.
import { clock } from "./format.js";
import { h } from "./dom.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;
const SILENCE_MS = 30000; // the server says something every ten seconds
const SHOW_LOSS_AFTER_MS = 1500;

export class LiveSocket {
  constructor(path, { cursors, message }) {
    this.path = path;
    this.cursors = cursors;
    this.message = message;
    this.heard = Date.now();
    this.wait = FIRST_WAIT_MS;
    this.lost = 0;
    this.over = false;
    addEventListener("online", () => this.open());
    addEventListener("pagehide", () => this.stop());
    addEventListener("pageshow", (event) => event.persisted && this.again());
    setInterval(() => this.watch(), 1000);
    this.open();
  }

  open() {
    if (this.over || (this.socket && this.socket.readyState < 2)) return;
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}${this.path}`);
    this.socket = socket;
    socket.onopen = () => {
      this.heard = Date.now();
      socket.send(JSON.stringify({ cursors: this.cursors() }));
    };
    socket.onmessage = (event) => {
      this.heard = Date.now();
      this.wait = FIRST_WAIT_MS;
      this.lost = 0;
      this.show("");
      const message = JSON.parse(event.data);
      if (message.type === "error") this.show(message.message);
      else if (message.type === "update") this.message(message);
    };
    socket.onclose = (event) => this.socket === socket && this.closed(event.code);
  }

  closed(code) {
    if (this.over) return;
    this.lost = this.lost || Date.now();
    if (code === 4404) {
      this.over = true;
      this.show("What this page shows does not exist any more.");
      return;
    }
    if (code === 4401 || code === 1006) this.checkSession();
    this.next = Date.now() + this.wait * (0.75 + Math.random() / 2);
    this.timer = setTimeout(() => this.open(), this.next - Date.now());
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 2);
  }

  async checkSession() {
    try {
      const answer = await fetch(location.href, { method: "HEAD", redirect: "manual" });
      if (answer.type !== "opaqueredirect") return;
    } catch {
      return; // the server is away; the timer tries again
    }
    this.over = true;
    clearTimeout(this.timer);
    this.show("You are logged out.", ["Log in again", () => location.reload()]);
  }

  watch() {
    if (this.over) return;
    const open = this.socket && this.socket.readyState === 1;
    if (open && Date.now() - this.heard > SILENCE_MS) this.socket.close();
    if (!this.lost || Date.now() - this.lost < SHOW_LOSS_AFTER_MS) return;
    const left = Math.max(0, Math.round((this.next - Date.now()) / 1000));
    const again = left ? ` Trying again in ${left} s.` : " Trying again.";
    this.show(`Connection lost, showing data until ${clock(this.heard)}.${again}`, [
      "Try now", () => this.open(),
    ]);
  }

  show(text, action) {
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
    this.over = true;
    clearTimeout(this.timer);
    if (this.socket) this.socket.close();
  }

  again() {
    this.over = false;
    this.open();
  }
}
