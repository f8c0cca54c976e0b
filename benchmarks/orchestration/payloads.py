"""What travels in a benchmark: the model, what trains of it, and how many bytes that is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# FLAN-T5-small's architecture with random weights: 76,961,152 parameters, output layer untied.
SMALL: dict[str, Any] = {
    "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8,
    "num_heads": 6, "vocab_size": 32128, "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False, "decoder_start_token_id": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Payload:
    """``model`` is nano or small; ``adapter`` the specification's group."""

    model: str
    adapter: dict[str, Any]
    says: str


PAYLOADS = {
    "tiny": Payload(
        "nano", {"kind": "lora", "rank": 1, "targets": ["q"], "dropout": 0.0}, "nano, LoRA r=1 on q"
    ),
    "lora": Payload(
        "small", {"kind": "lora", "rank": 8, "dropout": 0.0}, "FLAN-T5-small, LoRA r=8 on q,v"
    ),
    "full": Payload("small", {"kind": "full"}, "FLAN-T5-small, all weights, fp32"),
}


def model_name(payload: Payload, cache: Path) -> str:
    """What the specification says: ``nano``, or a folder that is made once."""
    if payload.model == "nano":
        return "nano"
    folder = cache / "flan-t5-small-random"
    if not (folder / "config.json").exists():
        # torch stays out of the process that measures.
        subprocess.run(
            [sys.executable, "-m", "benchmarks.orchestration.payloads", str(folder)], check=True
        )
    return str(folder)


def build_small(folder: Path) -> int:
    """Write the model and nano's tokenizer into a folder; returns the number of parameters."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from fedcore.model.load import NANO

    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**SMALL))
    # transformers 5 ties the output layer of every T5 it builds, whatever its configuration says.
    head = torch.randn_like(model.lm_head.weight) * SMALL["d_model"] ** -0.5
    model.lm_head.weight = torch.nn.Parameter(head)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    config = json.loads((part / "config.json").read_text())
    (part / "config.json").write_text(json.dumps(config | SMALL, indent=1))
    for path in NANO.iterdir():
        if "token" in path.name or path.suffix == ".model":
            shutil.copy(path, part / path.name)
    part.replace(folder)
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    print(f"{build_small(Path(sys.argv[1])):,} parameters, random weights", file=sys.stderr)
