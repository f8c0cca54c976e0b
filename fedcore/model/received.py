"""The received global model on a device: its adapter at the device's rank, and the merged base.

The global adapter has the rank that is served. A device of a lower rank takes its first rows and
columns, which after a redistribution (FlexLoRA, arXiv 2402.11505) are the best approximation of
that rank. It rescales B to its own scale, so that the product stays the same.
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
    adapter: dict[str, Tensor] = {}
    for name in frame:
        module, factor = factor_of(name)
        rank = rank_of(spec.adapter, module) if factor in ("A", "B") else 0
        if not rank:
            continue
        tensor = frame[name].float()
        if rank > min(tensor.shape):
            raise WireError(f"{name} has rank {min(tensor.shape)}, this device is to train {rank}")
        if factor == "A":
            adapter[name] = tensor[:rank].clone()
        else:
            adapter[name] = tensor[:, :rank] * (scale / spec.adapter.scale)
    return adapter


def merged_modules(frame: Frame) -> Iterator[str]:
    """Modules whose base has a merged update."""
    for name in frame:
        module, factor = factor_of(name)
        if factor == "MA":
            yield module


def merged_change(frame: Frame, module: str) -> Tensor:
    """The merged update of a module's base: (out, in), fp32."""
    up, down = (frame[factor_name(module, factor)].float() for factor in ("MB", "MA"))
    return up @ down


class MergedBase:
    """The base of an adapted model with the updates that stack and fedex merge into it.

    Keeps the original of each matrix it changes.
    """

    def __init__(self) -> None:
        self._before: dict[str, Tensor] = {}

    @torch.no_grad()
    def set(self, model: Any, frame: Frame) -> None:
        """Set the base to the original plus the frame's merged updates."""
        changed = set(merged_modules(frame))
        if not changed and not self._before:
            return
        modules = dict(model.named_modules())
        for module in sorted(changed | set(self._before)):
            layer: Any = modules[PREFIX + module]
            weight = getattr(layer, "base_layer", layer).weight  # some devices do not adapt it
            before = self._before.setdefault(module, weight.detach().clone())
            if module in changed:
                weight.copy_(before.float() + merged_change(frame, module).to(weight.device))
            else:
                weight.copy_(before)
