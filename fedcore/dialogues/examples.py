"""Finds the domains (one module each under `domains/`) and draws examples from them."""

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


def _discover() -> dict[str, _Domain]:
    found: dict[str, _Domain] = {}
    for info in sorted(pkgutil.iter_modules(domains.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{domains.__name__}.{info.name}")
        found[info.name] = _Domain(module.play, getattr(module, "HELD_OUT", False))
    return found


_DOMAINS = _discover()
DOMAINS: tuple[str, ...] = tuple(_DOMAINS)
HELD_OUT_DOMAINS: tuple[str, ...] = tuple(n for n, d in _DOMAINS.items() if d.held_out)
"""Domains that the carried checkpoint has never seen: what the demo's devices hold."""


def generate(domain: str, count: int, seed: int) -> Iterator[DialogueExample]:
    """Draw `count` different examples; the same arguments give the same text on every machine.

    A longer draw begins with the shorter one of the same seed.
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
