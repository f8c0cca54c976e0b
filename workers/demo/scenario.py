"""The demo's three devices, their private dialogues, and their job."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcore.dialogues.examples import generate

EXAMPLES = 300


@dataclass(frozen=True)
class DemoDevice:
    """A device and the domain of its dialogues, which the base model has never seen."""

    name: str
    domain: str
    seed: int


FLEET = (
    DemoDevice("clinic-tablet", "clinic", 101),
    DemoDevice("law-office-pc", "law", 102),
    DemoDevice("workshop-pi", "workshop", 103),
)

SPEC: dict[str, Any] = {
    "name": "Dialogue summaries",
    "model": {"name": "nano"},
    "adapter": {"kind": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0},
    "data": {"max_validation_examples": 32, "max_source_tokens": 256, "max_target_tokens": 64},
    "train": {"local_steps": 30, "batch_size": 8, "learning_rate": 5e-3, "precision": "auto"},
    "strategy": {"name": "fedavg"},
    "participation": {"minimum": 3, "deadline_s": 600.0, "lease_s": 30.0},
    "rounds": 8,
    "seed": 7,
    "threads": 1,
}


def write_dialogues(device: DemoDevice, folder: Path) -> Path:
    """Write the device's dialogues into its folder, once."""
    path = folder / f"{device.domain}.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rows = generate(device.domain, EXAMPLES, device.seed)
        lines = [json.dumps({"dialogue": row.dialogue, "summary": row.summary}) for row in rows]
        temporary = path.with_suffix(".part")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.replace(path)
    return path
