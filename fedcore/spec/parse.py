"""Read a job specification: as a person sends it, or as it was stored."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from fedcore.errors import Fault, SpecError
from fedcore.spec.checks import check_of, shortened, shown
from fedcore.spec.job import JobSpec, _hints
from fedcore.spec.rules import (
    adapter,
    method,
    participation,
    ranks,
    strategy,
    train,
    tree,
    wire,
)


def parse_spec(values: Mapping[str, Any]) -> JobSpec:
    """Read a specification from plain JSON values.

    Raises SpecError with every fault: unknown keys (with the nearest known one), wrong types,
    values out of range, and combinations that make no sense.
    """
    spec = load_spec(values)
    if faults := [fault for rule in RULES for fault in rule(spec)]:
        raise SpecError(faults)
    return spec


def load_spec(values: Mapping[str, Any]) -> JobSpec:
    """Read a specification that was accepted before, perhaps by a version with fewer rules.

    Rules on combinations are not asked again: one that came later must not make a job that is
    there unreadable. Raises SpecError for unknown keys, wrong types and values out of range.
    """
    faults: list[Fault] = []
    spec = _read(JobSpec, values, "", faults)
    if faults or spec is None:
        raise SpecError(faults)
    return spec


T = TypeVar("T")


def _read(kind: type[T], values: Any, path: str, faults: list[Fault]) -> T | None:
    if not isinstance(values, Mapping):
        faults.append(Fault(path, f"give an object with options, not {shown(values)}"))
        return None
    hints = _hints(kind)  # type: ignore[arg-type]
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    faults.extend(_unknown(key, known, path) for key in values if key not in known)
    read: dict[str, Any] = {}
    for name, item in known.items():
        where = f"{path}.{name}" if path else name
        if name not in values:
            continue
        if is_dataclass(hints[name]):
            read[name] = _read(hints[name], values[name], where, faults)
            continue
        read[name], message = check_of(item)(values[name])
        if message:
            faults.append(Fault(where, message))
    usable = {name: value for name, value in read.items() if value is not None}
    return kind(**usable)


def _unknown(key: Any, known: Mapping[str, Any], path: str) -> Fault:
    name = shortened(str(key))
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    where = f"{path}.{name}" if path else name
    return Fault(where, f"unknown option; {hint}")


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    *train.RULES,
    *adapter.RULES,
    *ranks.RULES,
    *strategy.RULES,
    *method.RULES,
    *participation.RULES,
    *tree.RULES,
    *wire.RULES,
)
