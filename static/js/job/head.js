// State, sentence, tiles, buttons.
import { capital, duration, percent, si, significant, size } from "../lib/format.js";
import { setState, setText } from "../lib/dom.js";

const part = (name) => document.querySelector(`[data-job="${name}"]`);
const tile = (name, text) => setText(document.querySelector(`[data-tile="${name}"]`), text);

function roundWords({ number, of, phase, attempt }, buffer) {
  if (!phase) return `${of} rounds`;
  const again = attempt > 1 ? `, attempt ${attempt}` : "";
  if (!number) return `evaluating the start, then ${of} rounds`;
  if (!buffer) return `round ${number} of ${of}, ${phase}${again}`;
  const fill = phase === "collecting" ? `, ${buffer.held} of ${buffer.size} updates` : "";
  return `asynchronous, version ${number} of ${of}, ${phase}${again}${fill}`;
}

export function showHead(state) {
  setState(part("state").querySelector(".state") || part("state"), state.phase);
  setText(part("round"), roundWords(state.round, state.buffer));
  part("left").hidden = state.eta_s == null;
  setText(part("left"), `about ${duration(state.eta_s)} left`);
  setText(part("headline"), capital(state.headline));
  part("progress").value = state.progress;
  for (const form of document.querySelectorAll("[data-move]")) {
    form.hidden = !state.moves.includes(form.dataset.move);
  }
  showArtefacts(state.artefacts);
  showTiles(state.tiles);
  sayConsequence(state);
  const awaiting = document.querySelector(`[data-awaits="${state.phase}"]`);
  if (awaiting) awaiting.dispatchEvent(new Event(state.phase)); // htmx fetches what can be done now
}

function showArtefacts(artefacts) {
  part("downloads").hidden = !artefacts.merged_url && !artefacts.adapter_url;
  part("merged").hidden = !artefacts.merged_url;
  part("adapter").hidden = !artefacts.adapter_url;
  if (artefacts.adapter_url) part("adapter").href = artefacts.adapter_url;
  if (artefacts.merged_url) part("merged").href = artefacts.merged_url;
  if (artefacts.global) {
    const { sha256, size_bytes: bytes } = artefacts.global;
    setText(part("artefact"), `${size(bytes)}, SHA-256 ${sha256}`);
  }
}

function showTiles(t) {
  if (t.rougeL != null) {
    const known = t.rougeL_base != null; // a job may leave the evaluation before training out
    const gain = known ? t.rougeL - t.rougeL_base : 0;
    const sign = gain >= 0 ? "+" : "−";
    tile("rougeL", t.rougeL.toFixed(1));
    if (known) tile("rougeL-sub", `${sign}${Math.abs(gain).toFixed(1)} since the start (${t.rougeL_base.toFixed(1)})`);
    document.querySelector('[data-tile="rougeL-sub"]').classList.toggle("gain", gain > 0);
  }
  if (t.loss != null) {
    tile("loss", significant(t.loss));
    tile("loss-sub", t.loss_base == null ? "nats per token" : `from ${significant(t.loss_base)} nats per token`);
  }
  tile("mfu", percent(t.mfu));
  tile("bytes", size(t.bytes_up + t.bytes_down));
  tile("bytes-sub", `${size(t.bytes_down)} down, ${size(t.bytes_up)} up`);
  tile("tokens", t.tokens ? si(t.tokens) : "–");
  document.querySelector('[data-tile-if="joules"]').hidden = t.joules == null;
  tile("joules", si(t.joules, "J"));
  const kinds = { 0: "measured", [t.joules_of]: "estimated from data sheets" };
  const kind = kinds[t.joules_estimated] || "partly estimated";
  const of = t.joules_of < t.trainings ? `, ${t.joules_of} of ${t.trainings} trainings` : "";
  const bought = t.eta_e == null ? "" : `, ${significant(t.eta_e)} tokens/s/W`;
  tile("joules-sub", `${kind}${of}${bought}`);
}

// What cancelling or pausing would do now.
function sayConsequence(state) {
  const working = state.devices.filter((device) => ["accepted", "training", "uploading"].includes(device.phase)).length;
  const kept = state.rounds.filter((round) => round.phase === "closed" && round.number).at(-1);
  const stop = working ? `${working} device${working === 1 ? "" : "s"} stop${working === 1 ? "s" : ""} within 5 s; ` : "";
  const cancel = document.querySelector('[data-move="cancel"]');
  if (!cancel) return;
  const what = kept ? `the model of round ${kept.number} is kept` : "no round has closed yet, so there is no tuned model";
  cancel.dataset.consequence = `${capital(stop + what)}. A cancelled job cannot be resumed.`;
}
