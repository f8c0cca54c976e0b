"""Runs of one method on one split, put together over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedcore.study.metrics import METRICS, MeasuredRun, Metric, Record
from fedcore.study.runs import RunStore, compared
from fedcore.study.study import Method, Settings, SplitRow

Spread = tuple[float, float | None]  # mean and sample standard deviation (None of one value)


def spread(values: Sequence[float]) -> Spread:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class SummaryRow:
    """One row of a table: a method on a split, with its record for each seed that is there."""

    method: Method
    split: SplitRow
    settings: Settings
    records: Mapping[int, Record]
    target: float

    def values(self, name: str) -> dict[int, float]:
        """A metric by seed; seeds whose run failed or has none are left out."""
        found = {
            seed: METRICS[name].value(record, self.target) for seed, record in self.records.items()
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def curve(self, name: str) -> list[tuple[int, Spread]]:
        """A metric over rounds: those rounds that every run which did not fail has."""
        metric: Metric = METRICS[name]
        curves = [
            dict(metric.points(MeasuredRun(record.rounds, self.target, record.plans)))
            for record in self.records.values()
            if not record.failure
        ]
        shared = set(curves[0]).intersection(*curves) if curves else set[int]()
        return [(number, spread([each[number] for each in curves])) for number in sorted(shared)]

    def gaps_to(self, other: SummaryRow, name: str) -> list[float]:
        """The differences to another method, one for each seed on which both have a value."""
        own, others = self.values(name), other.values(name)
        return [own[seed] - others[seed] for seed in own if seed in others]


def rows(shelf: RunStore) -> dict[str, list[SummaryRow]]:
    """The rows of each split by its name, in the study's order; without a run: no row."""
    found: dict[tuple[str, str], dict[int, Record]] = {}
    runs = compared(shelf)
    for run in runs:
        if record := shelf.get(run):
            found.setdefault((run.split.name, run.method.name), {})[run.seed] = record
    settings = {(run.split.name, run.method.name): run.settings for run in runs}
    return {
        split.name: [
            SummaryRow(method, split, settings[key], found[key], shelf.study.target_loss)
            for method in shelf.study.methods
            if (key := (split.name, method.name)) in found
        ]
        for split in shelf.study.splits
    }


def best(rows_: Sequence[SummaryRow], name: str) -> SummaryRow | None:
    """The row with the best mean as shown; None for a tie and where the metric has no better.

    A row without a value for each seed that any row has run is not it: its mean is of the seeds
    that went well.
    """
    metric, seeds = METRICS[name], {seed for row in rows_ for seed in row.records}
    found = [(row.values(name), row) for row in rows_]
    means = [
        (round(statistics.fmean(values.values()), metric.digits), row)
        for values, row in found
        if values and set(values) == seeds
    ]
    rivals = sum(bool(values) for values, _ in found)
    if not metric.better or not means or rivals < 2:
        return None
    pick = min if metric.better == "lower" else max
    value, row = pick(means, key=lambda pair: pair[0])
    return row if [mean for mean, _ in means].count(value) == 1 else None
