"""A study's examples: an existing file, or generated dialogues."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from fedcore.dialogues.examples import DOMAINS, generate
from fedcore.errors import Fault, SpecError

GENERATED = "dialogues"
EACH = 150  # dialogues of a domain
SEED = 52_610_417  # differs from the seeds of demo and tests


def is_generated(name: str) -> bool:
    """Whether the examples are generated."""
    return name.startswith(f"{GENERATED}:")


def data_fault(name: str) -> str:
    """The error in a study's ``data``, or an empty string."""
    if not is_generated(name):
        return ""
    domains = _domains(name)
    if unknown := [each for each in domains if each not in DOMAINS]:
        return f"no domain {', '.join(unknown)!r}; known: {', '.join(DOMAINS)}"
    return "name each domain once" if len(set(domains)) < len(domains) else ""


def data_file(name: str, data_dir: Path, generated_dir: Path) -> Path:
    """The file of examples, from ``data_dir`` or written into ``generated_dir``.

    ``dialogues:clinic+law`` has the same bytes on every machine. Raises SpecError.
    """
    if is_generated(name):
        path = generated_dir / f"{GENERATED}.jsonl"
        generated_dir.mkdir(parents=True, exist_ok=True)
        examples = [one for domain in _domains(name) for one in generate(domain, EACH, SEED)]
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in examples]
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return path
    path = data_dir / name
    if not path.is_file():
        message = f"there is no {name} in the folder; say where it is with --data-dir"
        raise SpecError([Fault("data", message)])
    return path


def _domains(name: str) -> list[str]:
    return name.partition(":")[2].split("+")
