"""The last decoder layers as what trains: they travel whole, everything else stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcore.architecture.sizes import Architecture
from fedcore.model.kinds.contract import AdapterModel
from fedcore.model.load import Base
from fedcore.model.skeleton import full_shapes, write_weights
from fedcore.model.weights import ModelSource, WeightFiles
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.wire.frame import FrameInfo, FrameReader


def _attach(base: Base, adapter: AdapterSpec, seed: int, personal: AdapterSpec | None) -> Any:
    """Freeze the model but its last decoder layers, which become fp32."""
    del seed, personal
    base.model.requires_grad_(False)
    for block in base.model.decoder.block[-adapter.last_layers :]:
        block.to(torch.float32).requires_grad_(True)
    return base.model


def layer_names(names: Iterator[str], layers: int, last: int) -> Iterator[str]:
    """Names of the weights in the last ``last`` of ``layers`` decoder layers."""
    prefixes = tuple(f"decoder.block.{number}." for number in range(max(0, layers - last), layers))
    return (name for name in names if name.startswith(prefixes))


def _write(spec: JobSpec, source: ModelSource, path: Path | str, meta: dict[str, str]) -> FrameInfo:
    shapes = full_shapes(source)
    layers = Architecture.from_config(source.config).decoder_layers
    names = layer_names(iter(shapes), layers, spec.adapter.last_layers)
    return write_weights({name: shapes[name] for name in names}, source, path, meta)


def merged(spec: JobSpec, name: str, files: WeightFiles, tuned: FrameReader) -> Tensor:
    """The weight as it was trained, or as the base has it."""
    del spec
    return tuned[name] if name in tuned else files.tensor(name).float()


ROW = AdapterModel(_attach, _write, merged)
