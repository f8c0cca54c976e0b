"""SCAFFOLD on a device (Karimireddy et al. 2020, arXiv 1910.06378, Algorithm 1 with option II).

Each step's gradient gets ``c - c_i``: the server's estimate of everybody's gradient, less the
device's of its own, which takes out how far its examples pull it from the others'. The server's c
comes with the model; c_i is a private file and never leaves.
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
SERVER_KEY = f"0.{CONTROLS}.c"  # as the fold names a state's tensors


def controlled(context: Context) -> LossTerm:
    """The linear term whose gradient is ``c - c_i``; afterwards c_i of this round is written.

    Where a round is trained once more it starts from the c_i before that round. A device that takes
    part for the first time begins at c_i = 0, as in the paper.
    Raises TrainingError where the device has no folder of its own.
    """
    folder, number = context.device_state.folder, context.round_number
    if folder is None:
        raise TrainingError(
            "scaffold keeps a file on each device from round to round; give it a private folder"
        )
    live = dict(trainable_parameters(context.work.model))
    old, server = _held(folder, number, live), _served(context.device_state.state, live)
    push = {name: server[name] - old[name] for name in live}
    rate = context.spec.train.learning_rate

    def finish(delta: Weights, steps: int) -> None:
        moved = {name: delta[name] / (steps * rate) for name in live}
        _keep(folder, number, {name: -push[name] - moved[name] for name in live})

    if not any(bool(tensor.any()) for tensor in push.values()):
        return LossTerm(finish=finish)
    near = {name: push[name].to(parameter.device) for name, parameter in live.items()}

    def penalty(weights: Weights) -> Tensor:
        return torch.stack([(weights[name] * near[name]).sum() for name in sorted(near)]).sum()

    return LossTerm(penalty, finish)


def _zeros(live: Weights) -> dict[str, Tensor]:
    return {name: torch.zeros(parameter.shape) for name, parameter in live.items()}


def _served(state: Path | None, live: Weights) -> dict[str, Tensor]:
    if state is None:
        return _zeros(live)
    frame = FrameReader(state)
    return {name: frame[f"{SERVER_KEY} {name}"].clone() for name in live}


def _held(folder: Path, number: int, live: Weights) -> dict[str, Tensor]:
    """c_i as it was before round ``number``."""
    before = [path for found, path in _files(folder) if found < number]
    if not before:
        return _zeros(live)
    frame = FrameReader(before[-1])
    return {name: frame[name].clone() for name in live}


def _keep(folder: Path, number: int, controls: Weights) -> None:
    """Write c_i of this round; only the one before it stays, for this round may come again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PREFIX}{number:06}{SUFFIX}"
    write_frame(path, dict(controls), {"kind": "control"})
    files = _files(folder)
    stay = [other for found, other in files if found < number][-1:]
    for _, other in files:
        if other not in (path, *stay):
            other.unlink(missing_ok=True)


def _files(folder: Path) -> list[tuple[int, Path]]:
    """Rounds and their files, by round."""
    paths = folder.glob(f"{PREFIX}*{SUFFIX}")
    return sorted((int(path.name[len(PREFIX) : -len(SUFFIX)]), path) for path in paths)
