"""Read a job specification: as a person sends it, or as it was stored."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from fedcore.errors import Fault, SpecError
from fedcore.spec.checks import check_of, quoted, shortened
from fedcore.spec.job import JobSpec, option_types
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
from fedcore.spec.rules.contract import Rule


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
        faults.append(Fault(path, f"give an object with options, not {quoted(values)}"))
        return None
    types = option_types(kind)  # type: ignore[arg-type]
    options = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in options:
            name = shortened(str(key))
            near = difflib.get_close_matches(name, list(options), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(options)}"
            faults.append(Fault(f"{prefix}{name}", f"unknown option; {hint}"))
    cleaned: dict[str, Any] = {}
    for name, item in options.items():
        if name not in values:
            continue
        if is_dataclass(types[name]):
            cleaned[name] = _read(types[name], values[name], f"{prefix}{name}", faults)
            continue
        cleaned[name], message = check_of(item)(values[name])
        if message:
            faults.append(Fault(f"{prefix}{name}", message))
    return kind(**{name: value for name, value in cleaned.items() if value is not None})


RULES: tuple[Rule, ...] = (
    *train.RULES,
    *adapter.RULES,
    *ranks.RULES,
    *strategy.RULES,
    *method.RULES,
    *participation.RULES,
    *tree.RULES,
    *wire.RULES,
)
