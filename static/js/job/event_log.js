// The event log of a job, newest first.
import { ago } from "../lib/format.js";
import { h } from "../lib/dom.js";

const MAX_LINES = 300;

export class EventLog {
  constructor(list) {
    this.list = list;
    this.cursor = null;
    this.ids = new Set();
  }

  add(events) {
    const added = events.filter((event) => !this.ids.has(event.id)).sort((a, b) => a.id - b.id);
    if (!added.length) return;
    if (!this.ids.size) this.list.replaceChildren();
    for (const event of added) {
      this.ids.add(event.id);
      this.cursor = Math.max(this.cursor || 0, event.seq);
      this.list.prepend(line(event));
    }
    while (this.list.children.length > MAX_LINES) this.list.lastElementChild.remove();
  }
}

function line(event) {
  const time = h("time", { datetime: event.at, title: new Date(event.at).toLocaleString() }, ago(event.at));
  time.dataset.ago = "";
  const item = h("li", {}, time, h("span", { class: "event-text" }, event.text));
  item.dataset.level = event.level;
  return item;
}
