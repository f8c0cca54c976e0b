"""Names, shapes and files of a model's weights, without building the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fedcore.errors import ModelError
from fedcore.model.quiet import quiet_libraries
from fedcore.model.weights import ALIASES, ModelSource, WeightFiles
from fedcore.wire.frame import FrameInfo, FrameWriter


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


def write_weights(
    shapes: dict[str, tuple[int, ...]], source: ModelSource, path: Path | str, meta: dict[str, str]
) -> FrameInfo:
    """Write these weights as the model's files have them, in fp32."""
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
