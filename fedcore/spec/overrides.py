"""A job as one of its devices is given it: its own rank, scale, modules, batch size and base.

``tailoring`` turns the per-device options of a specification into changes to it, as plain JSON
values; a planner may add its own. ``tailored`` applies them: what comes out is a specification
like any other, which the device trains by. Standard library alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.formats.codec_chain import Shapes
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AUTO_RANK, AdapterSpec
from fedcore.spec.options.ranks import entry_for, rank_of
from fedcore.spec.parse import parse_spec
from fedcore.spec.rewards import weighted

PREFIX = "base_model.model."  # of names in PEFT's own files
FACTORS = {"lora_A": "A", "lora_B": "B", "merged_A": "MA", "merged_B": "MB"}

Tailoring = Mapping[str, Any]  # dotted path of an option -> its value on this device
# What may differ from device to device; the rest is the job's.
ALLOWED = frozenset(
    {
        "adapter.rank", "adapter.alpha", "adapter.targets", "adapter.pattern",
        "train.batch_size", "train.micro_batch", "train.checkpointing", "model.base",
        "method.rewards", "method.own_rank",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A device as per-device options name it: its slot, its name, its machine (may be empty)."""

    slot: int
    name: str
    machine: str = ""


def tailored(spec: JobSpec, tailoring: Tailoring) -> JobSpec:
    """The specification with the changes made. Raises SpecError for what may not differ."""
    if not tailoring:
        return spec
    if odd := sorted(set(tailoring) - ALLOWED):
        raise SpecError([Fault(path, "is the same on all devices of a job") for path in odd])
    values = spec.to_dict()
    for name in ("ranks", "alphas", "modules"):
        values["adapter"].pop(name)
    for name in ("weights", "own_ranks"):
        values["method"].pop(name)
    for path, value in tailoring.items():
        group, _, name = path.partition(".")
        values[group][name] = value
    return parse_spec(values)


def tailoring(spec: JobSpec, member: Member, auto_rank: int = 0) -> dict[str, Any]:
    """What ``adapter``'s ranks, alphas and modules, and the method's options, say of one device.

    ``auto_rank``: the rank that suits it where the job says ``auto`` (0: the job's own).
    """
    adapter, changes = spec.adapter, dict[str, Any]()
    device = (member.slot, member.name, member.machine)
    if spec.method.weights:
        changes["method.rewards"] = weighted(spec.method.rewards, spec.method.weights, *device)
    personal = spec.method.family.has_personal_lora
    if personal and (word := entry_for(spec.method.own_ranks, *device)):
        changes["method.own_rank"] = int(word)
    if not adapter.family.trains_low_rank_factors or not adapter.mixed:
        return changes
    rank = adapter.rank
    if word := entry_for(adapter.ranks, *device):
        rank = (auto_rank or adapter.rank) if word == AUTO_RANK else int(word)
        changes["adapter.rank"] = rank
    word = entry_for(adapter.alphas, *device)
    changes["adapter.alpha"] = float(word) if word else adapter.scale * rank
    if word := entry_for(adapter.modules, *device):
        changes["adapter.targets"] = word.split("+")
    return changes


def differs(spec: JobSpec) -> bool:
    """Whether an option may say of a device something else than of the others."""
    return bool(spec.adapter.mixed or spec.method.weights or spec.method.own_ranks)


PER_DEVICE = (
    ("adapter", "ranks"), ("adapter", "alphas"), ("adapter", "modules"),
    ("method", "own_ranks"), ("method", "weights"),
)  # fmt: skip
SHOWN = 10  # names in a message


def stranger_faults(spec: JobSpec, members: Sequence[Member]) -> list[Fault]:
    """Entries that are about no device of the job, neither by its name nor by its machine."""
    names = [member.name for member in members]
    known = {*names, *(member.machine for member in members if member.machine)}
    more = ", ..." if len(names) > SHOWN else ""
    faults = []
    for group, option in PER_DEVICE:
        for entry in getattr(getattr(spec, group), option):
            name, equals, _ = entry.partition("=")
            if equals and name not in known:
                who = f"no device of this job is called {name!r} or is such a machine"
                there = f"they are {', '.join(names[:SHOWN])}{more}" if names else "there is none"
                faults.append(Fault(f"{group}.{option}", f"{entry!r}: {who}; {there}"))
    return faults


def for_evaluation(changes: Tailoring) -> dict[str, Any]:
    """What of a tailoring holds where a device evaluates: the global adapter is what is evaluated,
    on the base that the device has room for."""
    return {path: value for path, value in changes.items() if not path.startswith("adapter.")}


def auto_ranks(rank: int, speeds: Mapping[int, float]) -> dict[int, int]:
    """A rank for each slot by its device's FLOP/s: half of it for every factor of four.

    The fastest trains the job's rank, one of unknown speed (0) as well. Our choice: a rank costs a
    device little time and much of its uplink, and slow devices tend to have slow links.
    """
    fastest = max(speeds.values(), default=0.0)
    return {
        slot: max(1, rank >> round(math.log(fastest / speed, 4))) if speed > 0 else rank
        for slot, speed in speeds.items()
    }


def trained_shapes(spec: JobSpec, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a device trains and sends; ``shapes`` are those of the global model.

    ``spec`` is the job as the device was given it. A global adapter is cut to the device's ranks:
    A (rank, in) to its first rows, B (out, rank) to its first columns.
    """
    adapter = spec.adapter
    if not adapter.family.trains_low_rank_factors:
        return {name: tuple(shape) for name, shape in shapes.items()}
    trained: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        module, factor = factor_of(name)
        rank = rank_of(adapter, module) if factor in "AB" else 0
        if rank and factor != adapter.averaging.frozen_factor:
            trained[name] = (rank, shape[1]) if factor == "A" else (shape[0], rank)
    return trained


def lora_of(spec: JobSpec) -> AdapterSpec | None:
    """The LoRA that a device trains: the job's, or its personal one; None: it trains none."""
    method = spec.method
    if method.family.has_personal_lora:
        alpha = method.own_scale * method.own_rank
        dropout = spec.adapter.dropout
        return AdapterSpec(
            rank=method.own_rank, alpha=alpha, targets=method.own_targets, dropout=dropout
        )
    return spec.adapter if spec.adapter.family.trains_low_rank_factors else None


def factor_of(name: str) -> tuple[str, str]:
    """The module a tensor of a LoRA artefact belongs to, and which factor it is.

    A or B of the adapter, or MA or MB of what the base has taken in (its change is MB @ MA).
    """
    stem, _, kind = name.removesuffix(".weight").rpartition(".")
    return stem.removeprefix(PREFIX), FACTORS.get(kind, "")


def factor_name(module: str, factor: str) -> str:
    """The other way: the tensor's name."""
    kind = next(key for key, value in FACTORS.items() if value == factor)
    return f"{PREFIX}{module}.{kind}.weight"


def plain(spec: JobSpec) -> JobSpec:
    """The job as one that is alike on all devices: what evaluation and export look at."""
    if not spec.adapter.mixed:
        return spec
    return replace(spec, adapter=replace(spec.adapter, ranks=(), alphas=(), modules=()))
