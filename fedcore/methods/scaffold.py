"""SCAFFOLD on a device (Karimireddy et al. 2020, arXiv 1910.06378, Algorithm 1 with option II).

Each step's gradient gets ``c - c_i``: the server's estimate of the mean gradient minus the device's
estimate of its own, which corrects client drift. The server's c comes with the model. c_i is a
private file and never leaves the device.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fedcore.aggregation.server_optimizers import CONTROLS
from fedcore.errors import TrainingError
from fedcore.methods.contract import Context, LossTerm
from fedcore.model.parameters import trainable_parameters
from fedcore.train.loop import Weights
from fedcore.wire.frame import FrameReader, write_frame

PREFIX, SUFFIX = "control-", ".safetensors"
SERVER_KEY = f"0.{CONTROLS}.c"  # as the aggregation names the state's tensors


def controlled(context: Context) -> LossTerm:
    """The linear term whose gradient is ``c - c_i``; afterwards c_i of this round is written.

    A repeated round starts from the c_i before that round. A new device begins at c_i = 0, as in
    the paper. Raises TrainingError if the device has no private folder.
    """
    folder, number = context.device_state.folder, context.round_number
    if folder is None:
        raise TrainingError(
            "scaffold keeps a file on each device from round to round; give it a private folder"
        )
    live = dict(trainable_parameters(context.work.model))
    earlier = [path for other, path in _files(folder) if other < number]
    control = _read(earlier[-1] if earlier else None, "", live)
    server = _read(context.device_state.state, f"{SERVER_KEY} ", live)
    correction = {name: server[name] - control[name] for name in live}
    rate = context.spec.train.learning_rate

    def finish(delta: Weights, steps: int) -> None:
        moved = {name: delta[name] / (steps * rate) for name in live}
        _write(folder, number, {name: -correction[name] - moved[name] for name in live})

    if not any(bool(tensor.any()) for tensor in correction.values()):
        return LossTerm(finish=finish)
    near = {name: correction[name].to(parameter.device) for name, parameter in live.items()}

    def penalty(weights: Weights) -> Tensor:
        return torch.stack([(weights[name] * near[name]).sum() for name in sorted(near)]).sum()

    return LossTerm(penalty, finish)


def _read(path: Path | None, prefix: str, live: Weights) -> dict[str, Tensor]:
    """The control variate in a file, under ``prefix``; zeros without a file."""
    if path is None:
        return {name: torch.zeros(parameter.shape) for name, parameter in live.items()}
    frame = FrameReader(path)
    return {name: frame[f"{prefix}{name}"].clone() for name in live}


def _write(folder: Path, number: int, control: Weights) -> None:
    """Write c_i of this round and remove all others but the one before, for a repeated round."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PREFIX}{number:06}{SUFFIX}"
    write_frame(path, dict(control), {"kind": "control"})
    files = _files(folder)
    before = [other for earlier, other in files if earlier < number][-1:]
    for _, other in files:
        if other not in (path, *before):
            other.unlink(missing_ok=True)


def _files(folder: Path) -> list[tuple[int, Path]]:
    """Rounds and their files, by round."""
    paths = folder.glob(f"{PREFIX}*{SUFFIX}")
    return sorted((int(path.name[len(PREFIX) : -len(SUFFIX)]), path) for path in paths)
