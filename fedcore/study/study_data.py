"""A study's examples: a file that somebody brings, or dialogues that are made here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from fedcore.dialogues.examples import DOMAINS, generate
from fedcore.errors import Fault, SpecError

MADE_HERE = "dialogues"
EACH = 150  # dialogues of a domain
SEED = 52_610_417  # neither the demo's nor the tests'


def made_here(name: str) -> bool:
    """Whether nobody has to bring the examples."""
    return name.startswith(f"{MADE_HERE}:")


def data_fault(name: str) -> str:
    """What is wrong with a study's ``data``; "" where nothing is to be seen yet."""
    if not made_here(name):
        return ""
    wanted = _domains(name)
    if unknown := [each for each in wanted if each not in DOMAINS]:
        return f"no domain {', '.join(unknown)!r}; known: {', '.join(DOMAINS)}"
    return "name each domain once" if len(set(wanted)) < len(wanted) else ""


def data_file(name: str, brought: Path, made: Path) -> Path:
    """The file of examples, in the folder ``brought``, or written into the folder ``made``.

    ``dialogues:clinic+law`` are the same bytes on every machine. Raises SpecError.
    """
    if made_here(name):
        path = made / f"{MADE_HERE}.jsonl"
        made.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in _lines(_domains(name))), "utf-8")
        return path
    path = brought / name
    if not path.is_file():
        message = f"there is no {name} in the folder; say where it is with --data-dir"
        raise SpecError([Fault("data", message)])
    return path


def _domains(name: str) -> list[str]:
    return name.partition(":")[2].split("+")


def _lines(domains: Sequence[str]) -> Iterator[str]:
    for domain in domains:
        for example in generate(domain, EACH, SEED):
            yield json.dumps(asdict(example), ensure_ascii=False)
