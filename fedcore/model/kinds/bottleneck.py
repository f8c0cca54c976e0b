"""Bottleneck adapters: two thin matrices with GELU between them, after each feed-forward block.

Houlsby et al. 2019 (arXiv 1902.00751) put one after attention and one after the feed-forward block,
Pfeiffer et al. 2021 (arXiv 2005.00247) found the second alone as good; so it is here. Our choices
for T5, which normalises before a block: the adapter sees what the block says before dropout and the
residual sum, it has biases, GELU is the exact one, and there is no dropout of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from fedcore.errors import ModelError
from fedcore.export.bottleneck import NOT_MERGED
from fedcore.model.kinds.contract import AdapterModel
from fedcore.model.kinds.lora import attach_lora
from fedcore.model.load import Base
from fedcore.model.parameters import Named, artefact_name
from fedcore.model.skeleton import skeleton
from fedcore.model.weights import ModelSource, WeightFiles
from fedcore.seeds import derive
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.overrides import PREFIX
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame

BLOCK, NAME = (
    "DenseReluDense",
    "bottleneck",
)  # T5's name of a feed-forward block; ours of an adapter
PARTS = ("down.weight", "down.bias", "up.weight", "up.bias")
Shapes = dict[str, tuple[int, ...]]


class Bottleneck(torch.nn.Module):
    """``x + up(gelu(down(x)))`` of ``x`` (..., model), in the precision of ``x``; fp32 weights."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.down = torch.nn.Linear(size, width, dtype=torch.float32)
        self.up = torch.nn.Linear(width, size, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return x + _affine(gelu(_affine(x, self.down)), self.up)


def _affine(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    return linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def _after_block(block: torch.nn.Module, args: Any, out: Tensor) -> Tensor:
    del args
    adapted: Tensor = getattr(block, NAME)(out)
    return adapted


def attach(model: Any, width: int, seed: int) -> None:
    """Put adapters on a model in place, as ``initial_bottlenecks`` says, and freeze all else."""
    model.requires_grad_(False)
    shapes = bottleneck_shapes(model, width)
    with torch.random.fork_rng(devices=[]):  # torch draws a start of its own
        for block in _blocks(model).values():
            block.add_module(NAME, Bottleneck(_width_of(block), width))
            block.bottleneck_hook = block.register_forward_hook(_after_block)
    live = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in initial_bottlenecks(shapes, seed).items():
            live[name].copy_(tensor)


def detach(model: Any) -> None:
    """Take the adapters off again, in place."""
    for block in _blocks(model).values():
        if hasattr(block, NAME):
            block.bottleneck_hook.remove()
            del block.bottleneck_hook
            delattr(block, NAME)


def bottleneck_shapes(model: Any, width: int) -> Shapes:
    """Name and shape of every tensor: down (width, model), up (model, width), their biases.

    ``model`` may live on the meta device. Raises ModelError where it has no feed-forward blocks.
    """
    shapes: Shapes = {}
    for name, block in _blocks(model).items():
        size = _width_of(block)
        sizes = ((width, size), (width,), (size, width), (size,))
        shapes |= {f"{name}.{NAME}.{part}": shape for part, shape in zip(PARTS, sizes, strict=True)}
    if not shapes:
        raise ModelError(f"this model has no block called {BLOCK} to put an adapter after")
    return shapes


def initial_bottlenecks(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """The first adapters, the same on every machine: down uniform in +-1/sqrt(in), all else zero.

    With up at zero an adapter changes nothing at first. Drawn in the order of names.
    """
    generator = torch.Generator().manual_seed(derive(seed, "init"))
    tensors: dict[str, Tensor] = {}
    for name in sorted(shapes):
        tensors[name] = torch.zeros(shapes[name])
        if name.endswith(".down.weight"):
            bound = 1 / math.sqrt(shapes[name][1])
            tensors[name].uniform_(-bound, bound, generator=generator)
    return tensors


def is_bottleneck(name: str) -> bool:
    """Whether a parameter's or a tensor's name is one of an adapter."""
    return f".{NAME}." in name


def _blocks(model: Any) -> dict[str, Any]:
    """The feed-forward blocks by name, as the bare model has it."""
    return {
        name.removeprefix(PREFIX): module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == BLOCK
    }


def _width_of(block: Any) -> int:
    return int(block.wo.out_features)


def _attach(base: Base, adapter: AdapterSpec, seed: int, personal: AdapterSpec | None) -> Any:
    """Bottlenecks and, around the model, the device's personal LoRA; both train."""
    attach(base.model, adapter.width, seed)
    model = attach_lora(base, personal, seed) if personal else base.model
    for _, parameter in _shared(model):
        parameter.requires_grad_(True)
    return model


def _shared(model: Any) -> Named:
    """Bottlenecks, whether they are frozen or not; a LoRA beside them is the device's own."""
    for name, parameter in model.named_parameters():
        if is_bottleneck(name):
            yield artefact_name(name), parameter


def _write(spec: JobSpec, source: ModelSource, path: Path | str, meta: dict[str, str]) -> FrameInfo:
    shapes = bottleneck_shapes(skeleton(source), spec.adapter.width)
    return write_frame(path, initial_bottlenecks(shapes, spec.seed), meta)


def _merged(spec: JobSpec, name: str, files: WeightFiles, tuned: FrameReader) -> Tensor:
    del spec, name, files, tuned
    raise ModelError(NOT_MERGED)


ROW = AdapterModel(_attach, _write, _merged, shared=_shared, detach=detach)
