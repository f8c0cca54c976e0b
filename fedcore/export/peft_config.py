"""The ``adapter_config.json`` that makes a job's global artefact a folder PEFT can load.

Standard library only: a web process zips it with the artefact, which already is
``adapter_model.safetensors``.
"""

from __future__ import annotations

from typing import Any

from fedcore.spec.job import JobSpec

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


# Why there is no adapter to take from a job under stack or fedex.
BASE_CHANGED = (
    "this job folds part of what it learns into the base model, so its adapter alone is not the "
    "model; take the whole model"
)


def folds_into_base(spec: JobSpec) -> bool:
    """Whether the adapter is only a part of what the job has learned."""
    return spec.adapter.averaging.merges_into_base


def adapter_config(spec: JobSpec) -> dict[str, Any]:
    """PEFT's LoRA configuration of a job, as plain JSON values.

    peft 0.10 or newer reads it; where ``adapter.pattern`` leaves matrices out, 0.14 or newer.
    """
    adapter = spec.adapter
    given = [entry.rpartition("=") for entry in adapter.pattern]
    ranks = {module: int(rank) for module, _, rank in given}
    unlike = {module: rank for module, rank in ranks.items() if rank not in (0, adapter.rank)}
    left_out = sorted(module for module, rank in ranks.items() if not rank)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": spec.model.name,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": list(adapter.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
        **({"exclude_modules": left_out} if left_out else {}),
        **({"rank_pattern": unlike} if unlike else {}),
        **({"alpha_pattern": {m: adapter.scale * r for m, r in unlike.items()}} if unlike else {}),
    }
