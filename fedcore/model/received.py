"""What a device makes of the global model it receives: its own start, and the base it stands on.

The global adapter has the rank that is served. A device of a lower rank takes its first rows and
columns, which after a redistribution (FlexLoRA, arXiv 2402.11505) are the best of that rank, and
brings B to its own scale, so that the product stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fedcore.errors import WireError
from fedcore.spec.job import JobSpec
from fedcore.spec.options.ranks import rank_of
from fedcore.spec.overrides import PREFIX, factor_name, factor_of

SCALE_KEY = "scale"  # of a global adapter's metadata: what its product is multiplied with
Frame = Mapping[str, Tensor]


def adapter_of(frame: Frame, scale: float, spec: JobSpec) -> dict[str, Tensor]:
    """A device's adapter, A (rank, in) and B (out, rank) of each of its modules, fp32.

    ``scale`` is that of the global adapter, ``spec`` the job as the device was given it. Raises
    WireError for a module that is adapted here and not served.
    """
    found: dict[str, Tensor] = {}
    for name in frame:
        module, factor = factor_of(name)
        rank = rank_of(spec.adapter, module) if factor in ("A", "B") else 0
        if not rank:
            continue
        tensor = frame[name].float()
        if rank > min(tensor.shape):
            raise WireError(f"{name} has rank {min(tensor.shape)}, this device is to train {rank}")
        if factor == "A":
            found[name] = tensor[:rank].clone()
        else:
            found[name] = tensor[:, :rank] * (scale / spec.adapter.scale)
    return found


def merged_modules(frame: Frame) -> Iterator[str]:
    """Modules whose base has taken something in."""
    for name in frame:
        module, factor = factor_of(name)
        if factor == "MA":
            yield module


def merged_change(frame: Frame, module: str) -> Tensor:
    """What the base of a module has taken in: (out, in), fp32."""
    up, down = (frame[factor_name(module, factor)].float() for factor in ("MB", "MA"))
    return up @ down


class MergedBase:
    """The base of an adapted model with what stack and fedex folded into it.

    Keeps the weights it changes as they were: one matrix for each module, only where needed.
    """

    def __init__(self) -> None:
        self._before: dict[str, Tensor] = {}

    @torch.no_grad()
    def set(self, model: Any, frame: Frame) -> None:
        """Make the base what the frame says, whatever it was."""
        changed = set(merged_modules(frame))
        if not changed and not self._before:
            return
        modules = dict(model.named_modules())
        for module in sorted(changed | set(self._before)):
            weight = _base_of(modules[PREFIX + module]).weight
            before = self._before.setdefault(module, weight.detach().clone())
            if module in changed:
                weight.copy_(before.float() + merged_change(frame, module).to(weight.device))
            else:
                weight.copy_(before)


def _base_of(module: Any) -> Any:
    """The layer under an adapter; the layer itself on a device that does not adapt it."""
    return getattr(module, "base_layer", module)
