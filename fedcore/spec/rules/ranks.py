"""Combinations that a job specification refuses: rules about ranks of LoRA adapters."""

from __future__ import annotations

import difflib

from fedcore.architecture.matrices import matrices
from fedcore.architecture.sizes import ATTENTION, architecture_of
from fedcore.errors import Fault
from fedcore.spec.checks import parsed_number
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AUTO_RANK, LORA_TARGETS
from fedcore.spec.rules.contract import Rule


def _scale_faults(spec: JobSpec) -> list[Fault]:
    """Entries of the ranks and alphas per device: ``VALUE`` or ``DEVICE=VALUE``."""
    adapter, faults = spec.adapter, []
    for entry in adapter.ranks:
        rank = entry.rpartition("=")[2]
        if rank == AUTO_RANK:
            continue
        if not rank.isdecimal() or int(rank) < 1:
            message = f"{entry!r}: give a whole number from 1 on, or {AUTO_RANK}"
            faults.append(Fault("adapter.ranks", message))
        elif int(rank) > adapter.rank:
            message = f"is above adapter.rank ({adapter.rank}), the rank that is served; raise that"
            faults.append(Fault("adapter.ranks", f"{entry!r}: {message}"))
    for entry in adapter.alphas:
        alpha = parsed_number(entry.rpartition("=")[2])
        if alpha is None or not 0 < alpha <= 1e4:
            faults.append(Fault("adapter.alphas", f"{entry!r}: give a number above 0"))
    return faults


def _target_faults(spec: JobSpec) -> list[Fault]:
    """Entries of the modules per device (``DEVICE=q+v``) and of the pattern (``MATRIX=RANK``)."""
    adapter, faults = spec.adapter, []
    for entry in adapter.modules:
        modules = entry.rpartition("=")[2].split("+")
        if unknown := [name for name in modules if name not in LORA_TARGETS]:
            message = f"unknown {', '.join(unknown)}; choose from {', '.join(LORA_TARGETS)}"
            faults.append(Fault("adapter.modules", f"{entry!r}: {message}"))
        elif unserved := [name for name in modules if name not in adapter.targets]:
            message = f"{', '.join(unserved)} is not among adapter.targets, which are served"
            faults.append(Fault("adapter.modules", f"{entry!r}: {message}"))
    for entry in adapter.pattern:
        module, _, rank = entry.rpartition("=")
        if not module or not rank.isdecimal() or int(rank) > adapter.rank:
            message = f"{entry!r}: give MATRIX=RANK, the rank from 0 to adapter.rank"
            faults.append(Fault("adapter.pattern", f"{message} ({adapter.rank})"))
    return faults


def _matrix_faults(spec: JobSpec) -> list[Fault]:
    """Ranks above what a matrix can have, and entries about matrices that do not exist.

    Only for models of known sizes. Without the rule such entries would have no effect.
    """
    adapter, sizes, faults = spec.adapter, architecture_of(spec.model.name), []
    if sizes is None:
        return []
    sides = [sizes.inner if name in ATTENTION else sizes.d_ff for name in adapter.targets]
    largest_rank = min(sizes.d_model, *sides)
    if adapter.family.trains_low_rank_factors and adapter.rank > largest_rank:
        message = f"is above the smallest side of the matrices it adapts ({largest_rank}); lower it"
        faults.append(Fault("adapter.rank", message))
    known = [matrix.name for matrix in matrices(sizes)]
    for entry in adapter.pattern:
        name = entry.rpartition("=")[0]
        if name and name not in known:
            similar = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {similar[0]}?" if similar else f"they are called like {known[0]}"
            message = f"{spec.model.name} has no matrix {name!r}; {hint}"
            faults.append(Fault("adapter.pattern", message))
    return faults


RULES: tuple[Rule, ...] = (_scale_faults, _target_faults, _matrix_faults)
