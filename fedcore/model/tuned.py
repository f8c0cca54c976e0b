"""A model with bottleneck adapters, as a person loads it from the folder a job gave.

transformers and PEFT know no bottlenecks, so this is the loader: ``model, tokenizer =
load_tuned("folder")``. ``own`` is the file of a device's private LoRA (PFTT), where there is one.
"""

from __future__ import annotations

import json
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

OWN_KEYS = ("rank", "scale", "targets")  # what the file of a private LoRA says of itself


def load_tuned(
    folder: Path | str, own: Path | str | None = None, base: str = ""
) -> tuple[Any, Any]:
    """The tuned model (fp32, evaluation mode) and its tokenizer.

    ``base``: where the base model is here, if not where the job had it. Raises ModelError where the
    folder is none of a job, or the weights were tuned on another base.
    """
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG_FILE).read_text("utf-8"))
        width, name = int(config["width"]), base or str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no folder of bottleneck adapters: {error}") from error
    loaded, frame = load_base(name, torch.float32), FrameReader(path / WEIGHTS_FILE)
    wanted = frame.meta.get("fingerprint")
    if wanted and wanted != loaded.fingerprint:
        raise ModelError(f"foreign base: these adapters were tuned on other weights than {name}")
    shared = AdapterSpec(kind="bottleneck", width=width)
    kept = FrameReader(own) if own else None
    model = attach(loaded, shared, 0, own_lora(kept.meta) if kept else None)
    set_shared(model, shared.kind, frame)
    if kept is not None:
        set_adapter(model, kept)
    return model.eval(), loaded.tokenizer


def own_lora(meta: Any) -> AdapterSpec:
    """The LoRA that a private file's metadata describes."""
    if missing := [key for key in OWN_KEYS if key not in meta]:
        raise ModelError(f"this is no private LoRA: its file does not say its {missing[0]}")
    rank, targets = int(meta["rank"]), tuple(meta["targets"].split(","))
    return AdapterSpec(rank=rank, alpha=float(meta["scale"]) * rank, targets=targets, dropout=0.0)
