"""PFTT's LoRA of a device's own: it trains beside the shared bottlenecks and never leaves.

Arxiv 2404.13238, the method it calls PFTT: bottleneck adapters are shared and averaged, a LoRA
stays on each device. Our choices: both train at once, with one optimizer; the LoRA starts as every
LoRA does (B zero), goes on from round to round, and stays as it is where the device sits a round
out. It lies in the device's private folder, one file for each round that trained it: a round that
is trained once more starts from the file before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedcore.errors import TrainingError
from fedcore.methods.contract import Context, DeviceState, LossTerm
from fedcore.methods.round_files import LATEST_DRAW, Key, RoundFiles
from fedcore.model.parameters import adapter_parameters, set_adapter
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import lora_of
from fedcore.train.loop import Weights
from fedcore.wire.frame import FrameReader, write_frame

STEM = "own-lora"


def personal_lora_term(context: Context) -> LossTerm:
    """Put the device's LoRA of before this round into the model; keep what becomes of it.

    Raises TrainingError where the device has no folder of its own.
    """
    folder, model = context.device_state.folder, context.work.model
    if folder is None:
        raise TrainingError(
            "pftt keeps a LoRA on each device from round to round; give it a private folder"
        )
    key = (context.round_number, context.draw)
    files = RoundFiles(folder, STEM)
    _put(model, files.before(key))

    def finish(delta: Weights, steps: int) -> None:
        del delta, steps
        _keep(files, key, model, context.spec)

    return LossTerm(finish=finish)


def load_personal_lora(model: Any, own: DeviceState, round_number: int) -> None:
    """Make the model the device's own, as it is after a round; one never kept changes nothing."""
    if own.folder is not None:
        _put(model, RoundFiles(own.folder, STEM).newest((round_number, LATEST_DRAW)))


def _put(model: Any, path: Path | None) -> None:
    if path is not None:
        set_adapter(model, FrameReader(path))


def _keep(files: RoundFiles, key: Key, model: Any, spec: JobSpec) -> None:
    """Write the file of this piece of training; of the others only the one before it stays."""
    lora = lora_of(spec)
    assert lora is not None
    files.folder.mkdir(parents=True, exist_ok=True)
    meta = {
        "kind": "own-lora",
        "rank": str(lora.rank),
        "scale": repr(lora.scale),
        "targets": ",".join(lora.targets),
    }
    tensors = {name: item.detach().cpu().float() for name, item in adapter_parameters(model)}
    write_frame(files.path(key), tensors, meta)
    files.keep_only(key)
