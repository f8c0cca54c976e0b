"""The folder of a LoRA job: with ``adapter_config.json`` its global artefact loads in PEFT."""

from __future__ import annotations

import json

from fedcore.export.contract import AdapterFolder, Export
from fedcore.spec.job import JobSpec

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
README = """# {name}

A LoRA adapter for `{model}`, trained by Edgewise on {when}; its weights have the SHA-256
`{sha256}`.

```python
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

base = AutoModelForSeq2SeqLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "this/folder")
tokenizer = AutoTokenizer.from_pretrained("{base}")
inputs = tokenizer({prefix!r} + "your text", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))
```
"""


def config_text(spec: JobSpec) -> str:
    """PEFT's LoRA configuration of a job, as JSON.

    peft 0.10 or newer reads it; where ``adapter.pattern`` leaves matrices out, 0.14 or newer.
    """
    adapter = spec.adapter
    entries = [entry.rpartition("=") for entry in adapter.pattern]
    ranks = {module: int(rank) for module, _, rank in entries}
    unlike = {module: rank for module, rank in ranks.items() if rank not in (0, adapter.rank)}
    left_out = sorted(module for module, rank in ranks.items() if not rank)
    config = {
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
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


ROW = Export(AdapterFolder(WEIGHTS_FILE, CONFIG_FILE, config_text, README))
