"""The runs of a study: which exist, which are stored, and what tuning chose."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fedcore.errors import SpecError
from fedcore.formats.frame_header import sha256_file
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from fedcore.study.metrics import METRICS, Record
from fedcore.study.study import Method, Settings, SplitRow, Study, slug

NAME = "study"  # the name of every run's job, because a method's name must not change its inputs


@dataclass(frozen=True)
class StudyRun:
    """One simulation. ``tuning`` marks a tuning run, on a seed that is used for nothing else."""

    method: Method
    split: SplitRow
    seed: int
    settings: Settings
    tuning: bool = False

    def spec(self, study: Study) -> JobSpec:
        return study.spec_of(self.method, self.settings, self.seed)

    @property
    def id(self) -> str:
        """The run's id and file name. It contains the settings of a tuning run, not chosen ones."""
        parts = [slug(self.method.name), slug(self.split.name)]
        if self.tuning:
            tried = [f"{path.split('.')[-1]}={value}" for path, value in self.settings.items()]
            parts.append("tune-" + "-".join(tried))
        return "--".join([*parts, f"seed{self.seed}"])


@dataclass(frozen=True)
class RunStore:
    """The stored runs, one JSON file each. ``data`` is the study's file of examples."""

    study: Study
    folder: Path
    data: Path

    @cached_property
    def data_sha256(self) -> str:
        return sha256_file(self.data)

    def inputs(self, run: StudyRun) -> dict[str, Any]:
        """All inputs that determine the run's result, without threads and names."""
        return {
            "spec": replace(run.spec(self.study), name=NAME).to_dict(),
            "split": {**asdict(run.split), "name": ""},
            "seed": run.seed,
            "data_sha256": self.data_sha256,
            "columns": [self.study.text_column, self.study.summary_column],
        }

    def path(self, run: StudyRun) -> Path:
        return self.folder / f"{run.id}.json"

    def get(self, run: StudyRun) -> Record | None:
        """The stored record of a run with the same inputs, or None."""
        wanted_inputs = _comparable(self.inputs(run))
        try:
            record = Record(**json.loads(self.path(run).read_text("utf-8")))
            same = _comparable(record.inputs) == wanted_inputs
        except (OSError, ValueError, TypeError, KeyError, SpecError):
            return None  # missing, truncated, or from a version with other options
        return record if same else None

    def put(self, run: StudyRun, record: Record) -> None:
        """Store a record atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        half = self.path(run).with_suffix(".part")
        half.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")
        half.replace(self.path(run))


def _comparable(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the specification, so that options of later versions get their defaults."""
    return {**inputs, "spec": parse_spec(inputs["spec"])}


def tries(study: Study) -> list[StudyRun]:
    """The tuning runs."""
    return [
        StudyRun(method, split, seed, settings, tuning=True)
        for split in study.splits
        for method in study.methods
        if method.tune
        for settings in method.grid
        for seed in study.tuning_seeds
    ]


def score(shelf: RunStore, method: Method, split: SplitRow, settings: Settings) -> float | None:
    """Mean of the tuning metric over its seeds; None if incomplete. Failure is infinitely bad."""
    study, metric = shelf.study, METRICS[shelf.study.tuning_metric]
    bad = float("inf") if metric.better == "lower" else float("-inf")
    values = []
    for seed in study.tuning_seeds:
        record = shelf.get(StudyRun(method, split, seed, settings, tuning=True))
        if record is None:
            return None
        value = metric.value(record, study.target_loss)
        values.append(bad if value is None else value)
    return statistics.fmean(values)


def chosen(shelf: RunStore, method: Method, split: SplitRow) -> Settings | None:
    """The best settings of the grid, the first among equals; None while a run is missing."""
    if not method.tune:
        return {}
    scores = [score(shelf, method, split, settings) for settings in method.grid]
    known = [value for value in scores if value is not None]
    if len(known) < len(scores):
        return None
    best = min(known) if METRICS[shelf.study.tuning_metric].better == "lower" else max(known)
    return method.grid[known.index(best)]


def compared(shelf: RunStore) -> list[StudyRun]:
    """The runs of the table, for methods whose settings are chosen."""
    runs = []
    for split in shelf.study.splits:
        for method in shelf.study.methods:
            settings = chosen(shelf, method, split)
            for seed in shelf.study.seeds if settings is not None else ():
                runs.append(StudyRun(method, split, seed, settings or {}))
    return runs


def count(study: Study) -> int:
    """The number of all runs, tuning included."""
    return len(tries(study)) + len(study.splits) * len(study.methods) * len(study.seeds)


def select_runs(runs: Sequence[StudyRun], only: Sequence[str]) -> list[StudyRun]:
    """The runs whose id contains one of the texts; all if there are no texts."""
    return [run for run in runs if not only or any(text in run.id for text in only)]
