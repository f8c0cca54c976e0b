// Live presence of devices on lists; the overview reloads its fragment when something has changed.
import { ago } from "./lib/format.js";
import { setDeviceState, setReason, setText, showSite } from "./lib/dom.js";
import { LiveSocket } from "./lib/live_socket.js";

const REFRESH_MS = 1500;
let timer = 0;
let isFirst = true;

export function followFleet() {
  new LiveSocket("/ws/fleet/", { cursors: () => ({}), onmessage: onMessage });
}

function onMessage(message) {
  showSite(message.site);
  for (const device of message.devices) showDevice(device);
  const overview = document.getElementById("overview");
  // The first message repeats the state that the page was rendered with.
  if (overview && !isFirst && (message.jobs.length || message.left.length || message.devices.length)) {
    refresh(overview.id);
  }
  isFirst = false;
}

// At most one request in REFRESH_MS, and none while the tab is hidden.
function refresh(id) {
  if (timer || document.hidden) return;
  timer = setTimeout(() => {
    timer = 0;
    const fragment = document.getElementById(id);
    if (fragment.contains(document.activeElement)) return;
    window.htmx.trigger(fragment, "fleet-changed");
  }, REFRESH_MS);
}

export function showDevice(device, root = document.querySelector(`[data-device="${device.id}"]`)) {
  if (!root) return;
  setDeviceState(root.querySelector("[data-presence] .state"), device);
  setReason(root.querySelector("[data-reason]"), device.ability);
  const activity = root.querySelector("[data-activity]");
  const steps = device.steps ? `, step ${device.step} of ${device.steps}` : "";
  if (device.presence === "busy") setText(activity, `${device.phase}${steps}`);
  else if (device.last_seen_at) {
    let time = activity.querySelector("time");
    if (!time) {
      time = document.createElement("time");
      time.dataset.ago = "";
      activity.replaceChildren(time);
    }
    time.dateTime = device.last_seen_at;
    time.title = device.last_seen_at;
    setText(time, ago(device.last_seen_at));
  }
}
