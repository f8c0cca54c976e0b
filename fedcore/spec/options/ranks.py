"""Ranks, scales and targets that differ from device to device, or from matrix to matrix.

An entry is a value for the devices in turn, by slot (``4``), or for the one of that name or
machine (``pi=4``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from fedcore.spec.options.adapter import AdapterSpec


def entry_for(words: Sequence[str], slot: int, name: str, machine: str = "") -> str:
    """The entry that is about a device: by its name, by its machine, else in turn."""
    by_name = dict(word.split("=", 1) for word in words if "=" in word)
    for key in (name, machine):
        if key and key in by_name:
            return by_name[key]
    turns = [word for word in words if "=" not in word]
    return turns[slot % len(turns)] if turns else ""


def rank_of(adapter: AdapterSpec, module: str) -> int:
    """The rank of a matrix (its full name) by an adapter's targets and pattern; 0: it has none."""
    if module.rpartition(".")[2] not in adapter.targets:
        return 0
    return _exceptions(adapter.pattern).get(module, adapter.rank)


def ranks_of(adapter: AdapterSpec, modules: Sequence[str]) -> tuple[int, ...]:
    """The rank of each matrix, -1 where it has none; () where all that are adapted are alike."""
    return tuple(rank_of(adapter, name) or -1 for name in modules) if adapter.pattern else ()


@lru_cache(maxsize=256)
def _exceptions(pattern: tuple[str, ...]) -> dict[str, int]:
    entries = (entry.rpartition("=") for entry in pattern)
    return {module: int(rank) for module, _, rank in entries}
