"""PFTT's personal LoRA: it trains beside the shared bottlenecks and never leaves the device.

arXiv 2404.13238, the method it calls PFTT: bottleneck adapters are shared and averaged, a LoRA
stays on each device. Our choices: both train at once, with one optimizer. The LoRA starts with B at
zero, continues from round to round, and does not change in rounds without the device. The device's
private folder has one file for each round that trained it, so a repeated round starts from the file
before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedcore.errors import TrainingError
from fedcore.methods.contract import Context, DeviceState, LossTerm
from fedcore.methods.round_files import LATEST_DRAW, RoundFiles
from fedcore.methods.training import MethodTraining
from fedcore.model.parameters import adapter_parameters, set_adapter
from fedcore.spec.overrides import lora_of
from fedcore.train.loop import Weights
from fedcore.wire.frame import FrameReader, write_frame

STEM = "own-lora"


def personal_lora_term(context: Context) -> LossTerm:
    """Load the LoRA of the device's last round; save the trained one afterwards.

    Raises TrainingError if the device has no private folder.
    """
    folder, model = context.device_state.folder, context.work.model
    if folder is None:
        raise TrainingError(
            "pftt keeps a LoRA on each device from round to round; give it a private folder"
        )
    key = (context.round_number, context.draw)
    files = RoundFiles(folder, STEM)
    _load(model, files.before(key))

    def finish(delta: Weights, steps: int) -> None:
        del delta, steps
        lora = lora_of(context.spec)
        assert lora is not None
        folder.mkdir(parents=True, exist_ok=True)
        meta = {
            "kind": "own-lora",
            "rank": str(lora.rank),
            "scale": repr(lora.scale),
            "targets": ",".join(lora.targets),
        }
        tensors = {name: item.detach().cpu().float() for name, item in adapter_parameters(model)}
        write_frame(files.path(key), tensors, meta)
        files.keep_only(key)

    return LossTerm(finish=finish)


def load_personal_lora(model: Any, state: DeviceState, round_number: int) -> None:
    """Load the device's LoRA as it is after a round, if it has one."""
    if state.folder is not None:
        _load(model, RoundFiles(state.folder, STEM).newest((round_number, LATEST_DRAW)))


def _load(model: Any, path: Path | None) -> None:
    if path is not None:
        set_adapter(model, FrameReader(path))


ROW = MethodTraining(objective=personal_lora_term, load_personal=load_personal_lora)
