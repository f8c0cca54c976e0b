"""The job specification that form, REST API, coordinator, device and simulation share.

Every option is declared once, with its default, its check and the words a form shows. Reading a
specification collects all its faults before it refuses, so a person mends them in one go.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

from fedcore import (
    spec_adapter,
    spec_distill,
    spec_method,
    spec_participation,
    spec_ranks,
    spec_strategy,
    spec_train,
    spec_tree,
    spec_wire,
)
from fedcore.errors import Fault, SpecError
from fedcore.spec_adapter import AdapterSpec
from fedcore.spec_checks import check_of, option, real, shortened, shown, text, truth, whole
from fedcore.spec_distill import DistillSpec
from fedcore.spec_method import MethodSpec
from fedcore.spec_participation import EvaluationSpec, ParticipationSpec
from fedcore.spec_strategy import StrategySpec
from fedcore.spec_train import ModelSpec, TrainSpec
from fedcore.spec_tree import TreeSpec
from fedcore.spec_wire import WireSpec


@dataclass(frozen=True)
class DataSpec:
    dataset: str = option(
        "", text(0, 100), "Dataset", "name on the devices; empty: the first one each device holds"
    )
    prefix: str = option("summarize: ", text(0, 200), "Prompt prefix")
    max_source_tokens: int = option(512, whole(8, 8192), "Longest source, tokens")
    max_target_tokens: int = option(64, whole(4, 1024), "Longest summary, tokens")
    validation_fraction: float = option(
        0.15, real(0, 0.9, above=True), "Validation share", "of each device's examples"
    )
    max_validation_examples: int = option(
        64, whole(1, 100_000), "Validation examples at most", "evaluated by generation each round"
    )
    min_examples: int = option(
        8, whole(2, 10_000_000), "Examples a device must hold", "devices with fewer are left out"
    )


@dataclass(frozen=True)
class JobSpec:
    name: str = option("federated job", text(1, 120), "Name")
    model: ModelSpec = field(default_factory=ModelSpec)
    adapter: AdapterSpec = field(default_factory=AdapterSpec)
    data: DataSpec = field(default_factory=DataSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    strategy: StrategySpec = field(default_factory=StrategySpec)
    method: MethodSpec = field(default_factory=MethodSpec)
    distill: DistillSpec = field(default_factory=DistillSpec)
    participation: ParticipationSpec = field(default_factory=ParticipationSpec)
    tree: TreeSpec = field(default_factory=TreeSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    wire: WireSpec = field(default_factory=WireSpec)
    rounds: int = option(5, whole(1, 10_000), "Rounds")
    seed: int = option(0, whole(0, 2**31 - 1), "Seed")
    threads: int = option(0, whole(0, 1024), "CPU threads a device", "0: the device decides", True)
    deterministic: bool = option(
        False, truth(), "Deterministic", "same bits for the same seed, slower on a GPU", True
    )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JobSpec:
        """Read a specification from plain JSON values.

        Raises SpecError with every fault: unknown keys (with the nearest known one), wrong types,
        values out of range, and combinations that make no sense.
        """
        spec = cls.accepted(values)
        if faults := [fault for rule in RULES for fault in rule(spec)]:
            raise SpecError(faults)
        return spec

    @classmethod
    def accepted(cls, values: Mapping[str, Any]) -> JobSpec:
        """Read a specification that was accepted before, perhaps by a version with fewer rules.

        Rules on combinations are not asked again: one that came later must not make a job that is
        there unreadable. Raises SpecError for unknown keys, wrong types and values out of range.
        """
        faults: list[Fault] = []
        spec = _read(cls, values, "", faults)
        if faults or spec is None:
            raise SpecError(faults)
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` of them is an equal specification."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a group's options; reading them from annotations costs most of a look-up."""
    return get_type_hints(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


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
    *spec_train.RULES,
    *spec_adapter.RULES,
    *spec_ranks.RULES,
    *spec_strategy.RULES,
    *spec_method.RULES,
    *spec_distill.RULES,
    *spec_participation.RULES,
    *spec_tree.RULES,
    *spec_wire.RULES,
)


@dataclass(frozen=True)
class OptionInfo:
    """What a form or a document needs to know of one option. ``path`` is dotted."""

    path: str
    label: str
    help: str
    advanced: bool
    default: Any
    choices: tuple[str, ...] | None


def options(kind: type = JobSpec, path: str = "") -> list[OptionInfo]:
    """Every option in declaration order: the one list that form, REST schema and docs show."""
    found: list[OptionInfo] = []
    hints = _hints(kind)
    for item in fields(kind):
        where = f"{path}.{item.name}" if path else item.name
        if is_dataclass(hints[item.name]):
            found.extend(options(hints[item.name], where))  # type: ignore[arg-type]
            continue
        meta = item.metadata
        default = None if item.default is MISSING else item.default
        found.append(
            OptionInfo(
                where, meta["label"], meta["help"], meta["advanced"], default, meta["check"].choices
            )
        )
    return found
