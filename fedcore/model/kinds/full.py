"""Every weight as what trains; the base is fp32 then, and bf16 comes from autocast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedcore.model.kinds.contract import AdapterModel
from fedcore.model.kinds.layers import merged
from fedcore.model.load import Base
from fedcore.model.skeleton import full_shapes, write_weights
from fedcore.model.weights import ModelSource
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.wire.frame import FrameInfo


def _attach(base: Base, adapter: AdapterSpec, seed: int, personal: AdapterSpec | None) -> Any:
    del adapter, seed, personal
    return base.model.requires_grad_(True)


def _write(spec: JobSpec, source: ModelSource, path: Path | str, meta: dict[str, str]) -> FrameInfo:
    del spec
    return write_weights(full_shapes(source), source, path, meta)


ROW = AdapterModel(_attach, _write, merged)
