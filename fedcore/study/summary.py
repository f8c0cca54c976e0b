"""Summarise the runs of one method on one split over seeds."""

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
    """A table row: a method on a split, with one record per stored seed."""

    method: Method
    split: SplitRow
    settings: Settings
    records: Mapping[int, Record]
    target: float

    def values(self, name: str) -> dict[int, float]:
        """A metric by seed, without seeds whose run failed or has no value."""
        by_seed = {
            seed: METRICS[name].value(record, self.target) for seed, record in self.records.items()
        }
        return {seed: value for seed, value in by_seed.items() if value is not None}

    def curve(self, name: str) -> list[tuple[int, Spread]]:
        """A metric over the rounds that all successful runs have."""
        metric: Metric = METRICS[name]
        curves = [
            dict(metric.points(MeasuredRun(record.rounds, self.target, record.plans)))
            for record in self.records.values()
            if not record.failure
        ]
        shared = set(curves[0]).intersection(*curves) if curves else set[int]()
        return [(number, spread([each[number] for each in curves])) for number in sorted(shared)]

    def gaps_to(self, other: SummaryRow, name: str) -> list[float]:
        """Differences to another method, one per seed with values for both."""
        values, others = self.values(name), other.values(name)
        return [values[seed] - others[seed] for seed in values if seed in others]


def rows(shelf: RunStore) -> dict[str, list[SummaryRow]]:
    """Rows by split name, in the study's order. A method without runs has no row."""
    records: dict[tuple[str, str], dict[int, Record]] = {}
    runs = compared(shelf)
    for run in runs:
        if record := shelf.get(run):
            records.setdefault((run.split.name, run.method.name), {})[run.seed] = record
    settings = {(run.split.name, run.method.name): run.settings for run in runs}
    return {
        split.name: [
            SummaryRow(method, split, settings[key], records[key], shelf.study.target_loss)
            for method in shelf.study.methods
            if (key := (split.name, method.name)) in records
        ]
        for split in shelf.study.splits
    }


def best(rows_: Sequence[SummaryRow], name: str) -> SummaryRow | None:
    """The row with the best displayed mean; None for a tie or a metric without direction.

    A row that misses a seed is excluded, because its mean covers successful seeds only.
    """
    metric, seeds = METRICS[name], {seed for row in rows_ for seed in row.records}
    candidates = [(row.values(name), row) for row in rows_]
    means = [
        (round(statistics.fmean(values.values()), metric.digits), row)
        for values, row in candidates
        if values and set(values) == seeds
    ]
    rivals = sum(bool(values) for values, _ in candidates)
    if not metric.better or not means or rivals < 2:
        return None
    pick = min if metric.better == "lower" else max
    value, row = pick(means, key=lambda pair: pair[0])
    return row if [mean for mean, _ in means].count(value) == 1 else None
