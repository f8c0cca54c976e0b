// The event log, newest first.
import { ago } from "../lib/format.js";
import { h } from "../lib/dom.js";

const SHOWN = 300;

export class EventLog {
  constructor(list) {
    this.list = list;
    this.cursor = null;
    this.known = new Set();
  }

  add(events) {
    const fresh = events.filter((event) => !this.known.has(event.id)).sort((a, b) => a.id - b.id);
    if (!fresh.length) return;
    if (!this.known.size) this.list.replaceChildren();
    for (const event of fresh) {
      this.known.add(event.id);
      this.cursor = Math.max(this.cursor || 0, event.seq);
      this.list.prepend(line(event));
    }
    while (this.list.children.length > SHOWN) this.list.lastElementChild.remove();
  }
}

function line(event) {
  const time = h("time", { datetime: event.at, title: new Date(event.at).toLocaleString() }, ago(event.at));
  time.dataset.ago = "";
  const item = h("li", {}, time, h("span", { class: "what" }, event.text));
  item.dataset.level = event.level;
  return item;
}
