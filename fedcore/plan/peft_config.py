"""The ``adapter_config.json`` that makes a job's global artefact a folder PEFT can load.

Standard library only: a web process zips it with the artefact, which already is
``adapter_model.safetensors``.
"""

from __future__ import annotations

from typing import Any

from fedcore.spec import JobSpec

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def adapter_config(spec: JobSpec) -> dict[str, Any]:
    """PEFT's LoRA configuration of a job, as plain JSON values (peft 0.10 or newer reads it)."""
    adapter = spec.adapter
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
    }
