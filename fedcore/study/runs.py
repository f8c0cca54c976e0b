"""The runs of a study: which there are, which are kept already, what tuning chose."""

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

NAME = "study"  # of every run's job: what a method is called changes no result


@dataclass(frozen=True)
class StudyRun:
    """One simulation. ``tuning``: a try on a seed that decides nothing else."""

    method: Method
    split: SplitRow
    seed: int
    settings: Settings
    tuning: bool = False

    def spec(self, study: Study) -> JobSpec:
        return study.spec_of(self.method, self.settings, self.seed)

    @property
    def id(self) -> str:
        """Its name, also of its file; the settings of a try are in it, chosen ones are not."""
        parts = [slug(self.method.name), slug(self.split.name)]
        if self.tuning:
            tried = [f"{path.split('.')[-1]}={value}" for path, value in self.settings.items()]
            parts.append("tune-" + "-".join(tried))
        return "--".join([*parts, f"seed{self.seed}"])


@dataclass(frozen=True)
class RunStore:
    """The runs that are there, one JSON file each. ``data``: the study's file of examples."""

    study: Study
    folder: Path
    data: Path

    @cached_property
    def data_sha256(self) -> str:
        return sha256_file(self.data)

    def inputs(self, run: StudyRun) -> dict[str, Any]:
        """Whatever decides the run's result, as plain values; threads and names do not."""
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
        """The record of a run that was made from the same inputs; None where there is none."""
        wanted_inputs = _comparable(self.inputs(run))
        try:
            record = Record(**json.loads(self.path(run).read_text("utf-8")))
            same = _comparable(record.inputs) == wanted_inputs
        except (OSError, ValueError, TypeError, KeyError, SpecError):
            return None  # missing, cut off, or of a version with other options
        return record if same else None

    def put(self, run: StudyRun, record: Record) -> None:
        """Keep it; whoever is killed half-way leaves the former file or none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        half = self.path(run).with_suffix(".part")
        half.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")
        half.replace(self.path(run))


def _comparable(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Read as a specification, so that an option that came later has its default on both sides."""
    return {**inputs, "spec": parse_spec(inputs["spec"])}


def tries(study: Study) -> list[StudyRun]:
    """The runs that tuning needs."""
    return [
        StudyRun(method, split, seed, settings, tuning=True)
        for split in study.splits
        for method in study.methods
        if method.tune
        for settings in method.grid
        for seed in study.tuning_seeds
    ]


def score(shelf: RunStore, method: Method, split: SplitRow, settings: Settings) -> float | None:
    """The tuning metric's mean over its seeds, infinitely bad where a run failed; None: not yet."""
    study, metric = shelf.study, METRICS[shelf.study.tuning_metric]
    bad = float("inf") if metric.better == "lower" else float("-inf")
    found = []
    for seed in study.tuning_seeds:
        record = shelf.get(StudyRun(method, split, seed, settings, tuning=True))
        if record is None:
            return None
        value = metric.value(record, study.target_loss)
        found.append(bad if value is None else value)
    return statistics.fmean(found)


def chosen(shelf: RunStore, method: Method, split: SplitRow) -> Settings | None:
    """The best of the grid, the first of equals; None while a try is missing."""
    if not method.tune:
        return {}
    scores = [score(shelf, method, split, settings) for settings in method.grid]
    known = [value for value in scores if value is not None]
    if len(known) < len(scores):
        return None
    best = min(known) if METRICS[shelf.study.tuning_metric].better == "lower" else max(known)
    return method.grid[known.index(best)]


def compared(shelf: RunStore) -> list[StudyRun]:
    """The runs that the table is made of, as far as tuning has chosen their settings."""
    found = []
    for split in shelf.study.splits:
        for method in shelf.study.methods:
            settings = chosen(shelf, method, split)
            for seed in shelf.study.seeds if settings is not None else ():
                found.append(StudyRun(method, split, seed, settings or {}))
    return found


def count(study: Study) -> int:
    """All runs, tries included."""
    return len(tries(study)) + len(study.splits) * len(study.methods) * len(study.seeds)


def wanted(runs: Sequence[StudyRun], only: Sequence[str]) -> list[StudyRun]:
    """Those whose id holds one of the texts; all where none is given."""
    return [run for run in runs if not only or any(text in run.id for text in only)]
