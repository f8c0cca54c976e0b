"""Load a model with bottleneck adapters from an exported folder.

transformers and PEFT know no bottlenecks, so this is the loader: ``model, tokenizer =
load_tuned("folder")``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedcore.errors import ModelError
from fedcore.export.bottleneck import CONFIG_FILE, WEIGHTS_FILE
from fedcore.model.adapters import attach, set_shared
from fedcore.model.load import load_base
from fedcore.model.parameters import set_adapter
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.wire.frame import FrameReader

LORA_KEYS = ("rank", "scale", "targets")  # of the metadata of a personal LoRA's file


def load_tuned(
    folder: Path | str, own: Path | str | None = None, base: str = ""
) -> tuple[Any, Any]:
    """The tuned model (fp32, evaluation mode) and its tokenizer.

    ``own``: the file of a device's personal LoRA (PFTT), if any. ``base``: the path or
    name of the base model, if not that of the job. Raises ModelError where the folder holds no
    bottleneck adapters, or the weights were tuned on another base.
    """
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG_FILE).read_text("utf-8"))
        width, name = int(config["width"]), base or str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no folder of bottleneck adapters: {error}") from error
    loaded, frame = load_base(name, torch.float32), FrameReader(path / WEIGHTS_FILE)
    fingerprint = frame.meta.get("fingerprint")
    if fingerprint and fingerprint != loaded.fingerprint:
        raise ModelError(f"foreign base: these adapters were tuned on other weights than {name}")
    shared = AdapterSpec(kind="bottleneck", width=width)
    lora = FrameReader(own) if own else None
    model = attach(loaded, shared, 0, lora_of_meta(lora.meta) if lora else None)
    set_shared(model, shared.kind, frame)
    if lora is not None:
        set_adapter(model, lora)
    return model.eval(), loaded.tokenizer


def lora_of_meta(meta: Mapping[str, str]) -> AdapterSpec:
    """The LoRA that the metadata of a personal LoRA's file describes."""
    if missing := [key for key in LORA_KEYS if key not in meta]:
        raise ModelError(f"this is no personal LoRA: its metadata lacks {missing[0]}")
    rank, targets = int(meta["rank"]), tuple(meta["targets"].split(","))
    return AdapterSpec(rank=rank, alpha=float(meta["scale"]) * rank, targets=targets, dropout=0.0)
