"""Ranks, scales and targets that differ from device to device, or from matrix to matrix.

An entry is a value for the devices in turn, by slot (``4``), or for the one of that name or
machine (``pi=4``).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from fedcore.errors import Fault
from fedcore.plan.flops import ATTENTION, Architecture, architecture_of
from fedcore.plan.matrices import matrices
from fedcore.spec_adapter import AUTO_RANK, LORA_TARGETS, AdapterSpec

if TYPE_CHECKING:
    from fedcore.spec import JobSpec


def entry_for(words: Sequence[str], slot: int, name: str, machine: str = "") -> str:
    """The entry that is about a device: by its name, by its machine, else in turn."""
    named = dict(word.split("=", 1) for word in words if "=" in word)
    for key in (name, machine):
        if key and key in named:
            return named[key]
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
    return dict(_exception(entry) for entry in pattern)


def _exception(entry: str) -> tuple[str, int]:
    module, _, rank = entry.rpartition("=")
    return module, int(rank)


def _entries(spec: JobSpec) -> list[Fault]:
    """Entries of the per-device options that cannot be."""
    adapter = spec.adapter
    checks = (("ranks", _rank_fault), ("alphas", _alpha_fault), ("modules", _modules_fault))
    faults = []
    for name, check in checks:
        for word in getattr(adapter, name):
            if message := check(adapter, word.rpartition("=")[2]):
                faults.append(Fault(f"adapter.{name}", f"{word!r}: {message}"))
    for entry in adapter.pattern:
        module, _, rank = entry.rpartition("=")
        if not module or not rank.isdigit() or int(rank) > adapter.rank:
            message = f"{entry!r}: give MATRIX=RANK, the rank from 0 to adapter.rank"
            faults.append(Fault("adapter.pattern", f"{message} ({adapter.rank})"))
    return faults


def _rank_fault(adapter: AdapterSpec, word: str) -> str:
    if word == AUTO_RANK:
        return ""
    if not word.isdigit() or int(word) < 1:
        return f"give a whole number from 1 on, or {AUTO_RANK}"
    if int(word) > adapter.rank:
        return f"is above adapter.rank ({adapter.rank}), the rank that is served; raise that"
    return ""


def _alpha_fault(adapter: AdapterSpec, word: str) -> str:
    del adapter
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    return "" if 0 < value <= 1e4 else "give a number above 0"


def _modules_fault(adapter: AdapterSpec, word: str) -> str:
    given = word.split("+")
    if unknown := [name for name in given if name not in LORA_TARGETS]:
        return f"unknown {', '.join(unknown)}; choose from {', '.join(LORA_TARGETS)}"
    if unserved := [name for name in given if name not in adapter.targets]:
        return f"{', '.join(unserved)} is not among adapter.targets, which are served"
    return ""


def _rank_within_matrix(spec: JobSpec) -> list[Fault]:
    sizes = architecture_of(spec.model.name)
    if spec.adapter.kind != "lora" or sizes is None:
        return []
    most = min(_sides(sizes, spec.adapter.targets))
    if spec.adapter.rank <= most:
        return []
    message = f"is above the smallest side of the matrices it adapts ({most}); lower it"
    return [Fault("adapter.rank", message)]


def _pattern_is_of_the_model(spec: JobSpec) -> list[Fault]:
    """Entries about matrices that a model of known sizes does not have; they would do nothing."""
    sizes = architecture_of(spec.model.name)
    if sizes is None:
        return []
    known = [matrix.name for matrix in matrices(sizes)]
    named = [entry.rpartition("=")[0] for entry in spec.adapter.pattern]
    unknown = [name for name in named if name and name not in known]
    message = f"{spec.model.name} has no matrix"
    return [
        Fault("adapter.pattern", f"{message} {name!r}; {_nearest(name, known)}") for name in unknown
    ]


def _nearest(name: str, known: Sequence[str]) -> str:
    alike = difflib.get_close_matches(name, known, 1)
    return f"did you mean {alike[0]}?" if alike else f"they are called like {known[0]}"


def _sides(sizes: Architecture, targets: Sequence[str]) -> list[int]:
    other = [sizes.inner if name in ATTENTION else sizes.d_ff for name in targets]
    return [sizes.d_model, *other]


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _entries,
    _rank_within_matrix,
    _pattern_is_of_the_model,
)
