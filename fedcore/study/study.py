"""A study: methods, splits and seeds."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedcore.partition.split import SplitConfig
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec

Settings = Mapping[str, Any]  # dotted path of an option -> its value
DEFAULT_METRICS = ("loss", "rougeL", "worst", "spread", "jain", "bytes_up", "bytes_down")


@dataclass(frozen=True)
class Method:
    """A row of the table: changes to the study's specification, and tuned options."""

    name: str
    spec: Mapping[str, Any]
    tune: Mapping[str, Sequence[Any]]
    note: str = ""

    @property
    def grid(self) -> list[Settings]:
        """Every combination of tuned values; one empty combination without tuning."""
        tries = itertools.product(*self.tune.values())
        return [dict(zip(self.tune, values, strict=True)) for values in tries]


@dataclass(frozen=True)
class SplitRow:
    """A split of the data."""

    name: str
    partition: str = "iid"
    label_column: str = ""
    devices: int = 0

    def config(self, seed: int) -> SplitConfig:
        return SplitConfig(self.partition, self.label_column, self.devices, seed)


@dataclass(frozen=True)
class Study:
    """``target_loss`` is the target of ``rounds_to_target``; 0: none."""

    title: str
    data: str
    seeds: tuple[int, ...]
    spec: Mapping[str, Any]
    methods: tuple[Method, ...]
    splits: tuple[SplitRow, ...]
    question: str = ""
    text_column: str = ""
    summary_column: str = ""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    curves: tuple[str, ...] = ("loss", "rougeL")
    target_loss: float = 0.0
    tuning_seeds: tuple[int, ...] = ()
    tuning_metric: str = "loss"

    def spec_of(self, method: Method, settings: Settings, seed: int) -> JobSpec:
        """The specification of one run. Raises SpecError."""
        values = merged(self.spec, method.spec)
        for path, value in settings.items():
            *groups, last = path.split(".")
            section = values
            for group in groups:
                section = section.setdefault(group, {})
            section[last] = value
        return replace(parse_spec(values), seed=seed, name=method.name)


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` updated with ``changes``, group by group."""
    values = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        values[key] = merged(values[key], value) if both else copy.deepcopy(value)
    return values
