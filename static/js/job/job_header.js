// The header of the job page: state, headline, tiles, buttons, downloads.
import { capital, duration, percent, si, significant, size } from "../lib/format.js";
import { setState, setText } from "../lib/dom.js";

const element = (name) => document.querySelector(`[data-job="${name}"]`);
const tile = (name, text) => setText(document.querySelector(`[data-tile="${name}"]`), text);

function roundText({ number, of, phase, attempt }, buffer) {
  const rounds = `${of} round${of === 1 ? "" : "s"}`;
  if (!phase) return rounds;
  const retry = attempt > 1 ? `, attempt ${attempt}` : "";
  if (!number) return `measuring the baseline, then ${rounds}`;
  if (!buffer) return `round ${number} of ${of}, ${phase}${retry}`;
  const fill = phase === "collecting" ? `, ${buffer.held} of ${buffer.size} updates` : "";
  return `asynchronous, version ${number} of ${of}, ${phase}${retry}${fill}`;
}

export function showHeader(state) {
  setState(element("state").querySelector(".state") || element("state"), state.phase);
  setText(element("round"), roundText(state.round, state.buffer));
  element("left").hidden = state.eta_s == null;
  setText(element("left"), `about ${duration(state.eta_s)} left`);
  setText(element("headline"), capital(state.headline));
  element("progress").value = state.progress;
  for (const form of document.querySelectorAll("[data-move]")) {
    form.hidden = !state.moves.includes(form.dataset.move);
  }
  showArtefacts(state.artefacts);
  showTiles(state.tiles);
  updateCancelDialog(state);
  const fragment = document.querySelector(`[data-awaits="${state.phase}"]`);
  if (fragment) fragment.dispatchEvent(new Event(state.phase)); // htmx fetches the fragment
}

function showArtefacts(artefacts) {
  element("downloads").hidden = !artefacts.merged_url && !artefacts.adapter_url;
  element("merged").hidden = !artefacts.merged_url;
  element("adapter").hidden = !artefacts.adapter_url;
  if (artefacts.adapter_url) element("adapter").href = artefacts.adapter_url;
  if (artefacts.merged_url) element("merged").href = artefacts.merged_url;
  if (artefacts.global) {
    const { sha256, size_bytes: bytes } = artefacts.global;
    setText(element("artefact"), `${size(bytes)}, SHA-256 ${sha256}`);
  }
}

function showTiles(tiles) {
  if (tiles.rougeL != null) {
    const hasBase = tiles.rougeL_base != null; // a job may skip the baseline evaluation
    const gain = hasBase ? tiles.rougeL - tiles.rougeL_base : 0;
    const sign = gain >= 0 ? "+" : "−";
    tile("rougeL", tiles.rougeL.toFixed(1));
    if (hasBase) tile("rougeL-sub", `${sign}${Math.abs(gain).toFixed(1)} since the start (${tiles.rougeL_base.toFixed(1)})`);
    document.querySelector('[data-tile="rougeL-sub"]').classList.toggle("gain", gain > 0);
  }
  if (tiles.loss != null) {
    tile("loss", significant(tiles.loss));
    tile("loss-sub", tiles.loss_base == null ? "nats per token" : `from ${significant(tiles.loss_base)} nats per token`);
  }
  tile("mfu", percent(tiles.mfu));
  tile("bytes", size(tiles.bytes_up + tiles.bytes_down));
  tile("bytes-sub", `${size(tiles.bytes_down)} down, ${size(tiles.bytes_up)} up`);
  tile("tokens", tiles.tokens ? si(tiles.tokens) : "–");
  document.querySelector('[data-tile-if="joules"]').hidden = tiles.joules == null;
  tile("joules", si(tiles.joules, "J"));
  const kinds = { 0: "measured", [tiles.joules_of]: "estimated from data sheets" };
  const kind = kinds[tiles.joules_estimated] || "partly estimated";
  const of = tiles.joules_of < tiles.trainings ? `, ${tiles.joules_of} of ${tiles.trainings} runs` : "";
  const efficiency = tiles.eta_e == null ? "" : `, ${significant(tiles.eta_e)} tokens/s/W`;
  tile("joules-sub", `${kind}${of}${efficiency}`);
}

// What cancelling would do now, for the dialog of the button.
function updateCancelDialog(state) {
  const working = state.devices.filter((device) => ["accepted", "training", "uploading"].includes(device.phase)).length;
  const lastClosed = state.rounds.filter((round) => round.phase === "closed" && round.number).at(-1);
  const stop = working ? `${working} device${working === 1 ? "" : "s"} stop${working === 1 ? "s" : ""} within 5 s; ` : "";
  const cancel = document.querySelector('[data-move="cancel"]');
  if (!cancel) return;
  const result = lastClosed ? `the model of round ${lastClosed.number} is kept` : "no round has closed yet, so there is no tuned model";
  cancel.dataset.consequence = `${capital(stop + result)}. A cancelled job cannot be resumed.`;
}
