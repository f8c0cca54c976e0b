"""What a study measures of a run, by name: a value for each round, and how they become one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedcore.fairness import Evenness, evenness

Round = Mapping[str, Any]  # of a record: number, mean, devices, bytes_up, ...
Plan = Mapping[str, Any]  # what FedPipe planned for a device: matrices, rank, memory_mb, base, why
Points = list[tuple[int, float]]  # round and value, in order


@dataclass(frozen=True)
class Record:
    """One run as it is kept. ``failure`` says why it ended early, "" where it did not."""

    inputs: Mapping[str, Any]
    rounds: Sequence[Round]
    seconds: float
    failure: str = ""
    made_with: Mapping[str, str] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredRun:
    """What metrics look at: a run's rounds and plans, and the loss that rounds are counted to."""

    rounds: Sequence[Round]
    target: float = 0.0
    plans: Mapping[str, Plan] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """``better`` is lower, higher or "" where neither is; ``digits`` stand behind the point."""

    title: str
    unit: str
    better: str
    digits: int
    points: Callable[[MeasuredRun], Points]
    reduce: Callable[[Sequence[float]], float] = lambda values: values[-1]
    over_rounds: bool = True

    def value(self, record: Record, target: float) -> float | None:
        """The number of a whole run; None where it failed or has none."""
        run = MeasuredRun(record.rounds, target, record.plans)
        found = [] if record.failure else self.points(run)
        return self.reduce([value for _, value in found]) if found else None

    @property
    def label(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


def _mean(key: str) -> Callable[[MeasuredRun], Points]:
    """A measure of the global model, weighted by validation examples."""

    def points(run: MeasuredRun) -> Points:
        return [(each["number"], each["mean"][key]) for each in run.rounds if each["mean"]]

    return points


def _over(of: Callable[[Evenness], float], key: str = "rougeL") -> Callable[[MeasuredRun], Points]:
    """How evenly the devices are served, by a measure of their own; each counts alike."""

    def points(run: MeasuredRun) -> Points:
        return [
            (each["number"], of(found))
            for each in run.rounds
            if (found := evenness({name: row[key] for name, row in each["devices"].items()}))
        ]

    return points


def _used(measure: str) -> Callable[[MeasuredRun], Points]:
    """What a device works with: its own model where it has one, else the shared one.

    Each device counts alike.
    """

    def points(run: MeasuredRun) -> Points:
        return [
            (each["number"], statistics.fmean(_own(row, measure) for row in rows))
            for each in run.rounds
            if (rows := list(each["devices"].values()))
        ]

    return points


def _own(row: Mapping[str, Any], measure: str) -> float:
    return float(row.get("more", {}).get(f"personal_{measure}", row[measure]))


def _worst_used_loss(run: MeasuredRun) -> Points:
    return [
        (each["number"], max(_own(row, "loss") for row in each["devices"].values()))
        for each in run.rounds
        if each["devices"]
    ]


def _told(key: str) -> Callable[[MeasuredRun], Points]:
    """What the devices tell of their training, by name; the mean of those that do."""

    def points(run: MeasuredRun) -> Points:
        told = [(each["number"], each.get("measured", {}).values()) for each in run.rounds]
        found = [(number, [row[key] for row in rows if key in row]) for number, rows in told]
        return [(number, statistics.fmean(values)) for number, values in found if values]

    return points


def _gained(run: MeasuredRun) -> Points:
    before, after = (dict(_told(f"reward_{when}")(run)) for when in ("before", "after"))
    return [(number, after[number] - value) for number, value in before.items()]


def _planned(key: str) -> Callable[[MeasuredRun], Points]:
    """A figure of the devices' plans, the mean over them: one point, of round 1."""

    def points(run: MeasuredRun) -> Points:
        values = [plan[key] for plan in run.plans.values()]
        return [(1, statistics.fmean(values))] if values else []

    return points


def _worst_loss(run: MeasuredRun) -> Points:
    return [
        (each["number"], max(found["loss"] for found in each["devices"].values()))
        for each in run.rounds
        if each["devices"]
    ]


def _total(key: str) -> Callable[[MeasuredRun], Points]:
    """Megabytes (10**6) until each round, of all devices together."""

    def points(run: MeasuredRun) -> Points:
        sums = _running(each[key] for each in run.rounds)
        return [(each["number"], total / 1e6) for each, total in zip(run.rounds, sums, strict=True)]

    return points


def _running(values: Iterable[float]) -> list[float]:
    found, total = [], 0.0
    for value in values:
        total += value
        found.append(total)
    return found


def _errors(run: MeasuredRun) -> Points:
    found = [(each["number"], each["aggregation_error"]) for each in run.rounds]
    return [(number, error) for number, error in found if error is not None]


def _reached(run: MeasuredRun) -> Points:
    """The first evaluated round whose mean loss is at the target or below; none: no point."""
    found = [number for number, loss in _mean("loss")(run) if loss <= run.target]
    return [(found[0], float(found[0]))] if found else []


def _seconds(run: MeasuredRun) -> Points:
    return [(each["number"], each["seconds"]) for each in run.rounds]


METRICS: dict[str, Metric] = {
    "loss": Metric("Loss", "nats per token", "lower", 4, _mean("loss")),
    "rouge1": Metric("ROUGE-1", "F1, %", "higher", 2, _mean("rouge1")),
    "rouge2": Metric("ROUGE-2", "F1, %", "higher", 2, _mean("rouge2")),
    "rougeL": Metric("ROUGE-L", "F1, %", "higher", 2, _mean("rougeL")),
    "worst": Metric("Worst device", "ROUGE-L, %", "higher", 2, _over(lambda e: e.worst)),
    "worst_loss": Metric("Worst device", "loss", "lower", 4, _worst_loss),
    "spread": Metric(
        "Spread over devices", "std of ROUGE-L", "lower", 2, _over(lambda e: e.spread)
    ),
    "spread_loss": Metric(
        "Spread over devices", "std of loss", "lower", 4, _over(lambda e: e.spread, "loss")
    ),
    "jain": Metric("Jain index", "of ROUGE-L", "higher", 3, _over(lambda e: e.jain)),
    "used_loss": Metric(
        "Loss of the model a device uses", "own where it has one", "lower", 4, _used("loss")
    ),
    "used_rougeL": Metric(
        "ROUGE-L of the model a device uses", "F1, %", "higher", 2, _used("rougeL")
    ),
    "worst_used_loss": Metric(
        "Worst device", "loss of the model it uses", "lower", 4, _worst_used_loss
    ),
    "reward_before": Metric(
        "Own reward, shared model", "mean over devices", "higher", 4, _told("reward_before")
    ),
    "reward_after": Metric(
        "Own reward, own model", "mean over devices", "higher", 4, _told("reward_after")
    ),
    "reward_gain": Metric("Own reward", "own less shared model", "higher", 4, _gained),
    "plan_matrices": Metric(
        "Matrices adapted", "mean over devices", "", 1, _planned("matrices"), over_rounds=False
    ),
    "plan_rank": Metric("Rank of those", "mean", "", 1, _planned("rank"), over_rounds=False),
    "plan_memory": Metric(
        "Planned memory",
        "MB, mean over devices",
        "lower",
        1,
        _planned("memory_mb"),
        over_rounds=False,
    ),
    "plan_score": Metric(
        "Planned score", "share kept, mean", "higher", 3, _planned("score"), over_rounds=False
    ),
    "bytes_up": Metric("Sent up", "MB", "lower", 2, _total("bytes_up")),
    "bytes_down": Metric("Sent down", "MB", "lower", 2, _total("bytes_down")),
    "aggregation_error": Metric(
        "Aggregation error", "mean over rounds", "lower", 4, _errors, statistics.fmean
    ),
    "rounds_to_target": Metric(
        "Rounds to target loss", "", "lower", 1, _reached, over_rounds=False
    ),
    "seconds": Metric("Time", "s", "", 0, _seconds, sum),
}
CURVES = tuple(name for name, metric in METRICS.items() if metric.over_rounds)
