"""Synthetic dialogues with summaries: the demo's data, generated from a seed.

Each domain is a module in `fedcore.dialogues.domains`.
"""

import importlib
import pkgutil
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fedcore.dialogues import domains
from fedcore.dialogues.scene import Scene

_TRIES_PER_EXAMPLE = 200


@dataclass(frozen=True)
class DialogueExample:
    dialogue: str
    summary: str
    domain: str


@dataclass(frozen=True)
class _Domain:
    play: Callable[[Scene], str]
    held_out: bool


_DOMAINS: dict[str, _Domain] = {}
for _info in sorted(pkgutil.iter_modules(domains.__path__), key=lambda info: info.name):
    _module = importlib.import_module(f"{domains.__name__}.{_info.name}")
    _DOMAINS[_info.name] = _Domain(_module.play, getattr(_module, "HELD_OUT", False))
DOMAINS: tuple[str, ...] = tuple(_DOMAINS)
HELD_OUT_DOMAINS: tuple[str, ...] = tuple(n for n, d in _DOMAINS.items() if d.held_out)
"""Domains that the packaged checkpoint was not pre-trained on: the data of the demo."""


def generate(domain: str, count: int, seed: int) -> Iterator[DialogueExample]:
    """Generate `count` different examples, the same on every machine for the same arguments.

    With the same seed, a longer sequence begins with a shorter one.
    """
    if domain not in _DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    rng = random.Random(f"{domain}:{seed}")
    seen: set[str] = set()
    for _ in range(count):
        for _ in range(_TRIES_PER_EXAMPLE):
            scene = Scene(rng)
            summary = _DOMAINS[domain].play(scene)
            dialogue = scene.text()
            if dialogue not in seen:
                break
        else:
            raise ValueError(f"domain {domain!r} has no {count} different dialogues")
        seen.add(dialogue)
        yield DialogueExample(dialogue, summary, domain)
