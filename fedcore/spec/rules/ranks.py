"""Combinations that a job specification refuses: rules about ranks of LoRA adapters."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from fedcore.architecture.matrices import matrices
from fedcore.architecture.sizes import ATTENTION, architecture_of
from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AUTO_RANK, LORA_TARGETS, AdapterSpec


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
    if not spec.adapter.family.trains_low_rank_factors or sizes is None:
        return []
    other = [sizes.inner if name in ATTENTION else sizes.d_ff for name in spec.adapter.targets]
    most = min([sizes.d_model, *other])
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
    modules = [entry.rpartition("=")[0] for entry in spec.adapter.pattern]
    unknown = [name for name in modules if name and name not in known]
    message = f"{spec.model.name} has no matrix"
    return [
        Fault("adapter.pattern", f"{message} {name!r}; {_nearest(name, known)}") for name in unknown
    ]


def _nearest(name: str, known: Sequence[str]) -> str:
    alike = difflib.get_close_matches(name, known, 1)
    return f"did you mean {alike[0]}?" if alike else f"they are called like {known[0]}"


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _entries,
    _rank_within_matrix,
    _pattern_is_of_the_model,
)
