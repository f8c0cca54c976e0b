"""The first global artefact of a job, made from the model's files without building the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedcore.architecture.sizes import Architecture
from fedcore.errors import ModelError
from fedcore.model.adapters import initial_lora, lora_shapes
from fedcore.model.bottleneck import bottleneck_shapes, initial_bottlenecks
from fedcore.model.decoder_layers import layer_names
from fedcore.model.load import fingerprint, resolve
from fedcore.model.quiet import quiet_libraries
from fedcore.model.received import SCALE_KEY
from fedcore.model.source import ModelSource
from fedcore.model.weights import ALIASES, WeightFiles
from fedcore.spec.job import JobSpec
from fedcore.wire.frame import FrameInfo, FrameWriter, write_frame


@dataclass(frozen=True)
class InitialInfo:
    """The first global artefact: what it starts from and how large it is.

    ``parameters`` counts the base model's, ``trainable_parameters`` those that travel.
    """

    fingerprint: str
    parameters: int
    trainable_parameters: int
    architecture: Architecture
    sha256: str
    size: int


def write_initial(spec: JobSpec, path: Path | str) -> InitialInfo:
    """Write the first global weights (the adapters' start, or what trains of the model) in fp32.

    Its metadata says kind=global and the base's fingerprint; nothing else, so that equal
    specifications give equal bytes.
    """
    source = resolve(spec.model.name)
    mark = fingerprint(source.folder)
    meta = {"kind": "global", "fingerprint": mark}
    frame = WRITERS[spec.adapter.kind](spec, source, path, meta)
    architecture = Architecture.from_config(source.config)
    trainable = architecture.parameters()
    if spec.adapter.kind == "lora":
        trainable = architecture.lora_parameters(spec.adapter.rank, spec.adapter.targets)
    elif spec.adapter.kind == "layers":
        trainable = architecture.layers_parameters(spec.adapter.last_layers)
    elif spec.adapter.kind == "bottleneck":
        trainable = architecture.bottleneck_parameters(spec.adapter.width)
    return InitialInfo(
        mark, architecture.parameters(), trainable, architecture, frame.sha256, frame.size
    )


def skeleton(source: ModelSource) -> Any:
    """The model's modules on the meta device: names and shapes without any weight."""
    with quiet_libraries(), torch.device("meta"):
        from transformers import AutoConfig, AutoModelForSeq2SeqLM

        config = AutoConfig.from_pretrained(source.folder, local_files_only=True)
        return AutoModelForSeq2SeqLM.from_config(config)


def full_shapes(source: ModelSource) -> dict[str, tuple[int, ...]]:
    """Name and shape of every distinct weight of a model: aliases and a tied head left out."""
    skip = {*ALIASES, *(["lm_head.weight"] if source.tied else [])}
    model = skeleton(source)
    return {
        name: tuple(item.shape) for name, item in model.state_dict().items() if name not in skip
    }


def _write_lora(
    spec: JobSpec, source: ModelSource, path: Path | str, meta: dict[str, str]
) -> FrameInfo:
    shapes = lora_shapes(skeleton(source), spec.adapter)
    if spec.adapter.aggregation != "fedit":
        meta = {**meta, SCALE_KEY: repr(spec.adapter.scale)}
    return write_frame(path, initial_lora(shapes, spec.seed), meta)


def _write_bottlenecks(
    spec: JobSpec, source: ModelSource, path: Path | str, meta: dict[str, str]
) -> FrameInfo:
    shapes = bottleneck_shapes(skeleton(source), spec.adapter.width)
    return write_frame(path, initial_bottlenecks(shapes, spec.seed), meta)


def _write_full(
    spec: JobSpec, source: ModelSource, path: Path | str, meta: dict[str, str]
) -> FrameInfo:
    del spec
    return _write_files(full_shapes(source), source, path, meta)


def _write_layers(
    spec: JobSpec, source: ModelSource, path: Path | str, meta: dict[str, str]
) -> FrameInfo:
    shapes = full_shapes(source)
    layers = Architecture.from_config(source.config).decoder_layers
    names = layer_names(iter(shapes), layers, spec.adapter.last_layers)
    return _write_files({name: shapes[name] for name in names}, source, path, meta)


def _write_files(
    shapes: dict[str, tuple[int, ...]], source: ModelSource, path: Path | str, meta: dict[str, str]
) -> FrameInfo:
    """Weights as the model's files have them."""
    files = WeightFiles(source.folder)
    layout = {name: ("F32", shape) for name, shape in shapes.items()}
    with FrameWriter(path, layout, meta) as writer:
        for name in writer.order:
            tensor = files.tensor(name).float()
            if tuple(tensor.shape) != tuple(layout[name][1]):
                raise ModelError(f"{source.folder}: {name} does not have the configured shape")
            writer.write(name, tensor)
    assert writer.info is not None
    return writer.info


Writer = Callable[[JobSpec, ModelSource, Path | str, dict[str, str]], FrameInfo]
WRITERS: dict[str, Writer] = {
    "lora": _write_lora,
    "bottleneck": _write_bottlenecks,
    "layers": _write_layers,
    "full": _write_full,
}
