"""The metrics of a study: a value per round, and the reduction to one value per run."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from fedcore.fairness import Evenness, evenness

Round = Mapping[str, Any]  # of a record: number, mean, devices, bytes_up, ...
Plan = Mapping[str, Any]  # a device's FedPipe plan: matrices, rank, memory_mb, base, why
Points = list[tuple[int, float]]  # round and value, in order


@dataclass(frozen=True)
class Record:
    """A stored run. ``failure`` is the reason of an early end, or empty."""

    inputs: Mapping[str, Any]
    rounds: Sequence[Round]
    seconds: float
    failure: str = ""
    made_with: Mapping[str, str] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredRun:
    """The input of metrics: a run's rounds and plans, and the target loss."""

    rounds: Sequence[Round]
    target: float = 0.0
    plans: Mapping[str, Plan] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """``better`` is "lower", "higher" or "". ``digits`` is the number of decimals."""

    title: str
    unit: str
    better: str
    digits: int
    points: Callable[[MeasuredRun], Points]
    reduce: Callable[[Sequence[float]], float] = lambda values: values[-1]
    over_rounds: bool = True

    def value(self, record: Record, target: float) -> float | None:
        """The value of a whole run; None if it failed or has no value."""
        run = MeasuredRun(record.rounds, target, record.plans)
        points = [] if record.failure else self.points(run)
        return self.reduce([value for _, value in points]) if points else None

    @property
    def label(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


def _mean(key: str) -> Callable[[MeasuredRun], Points]:
    """A measure of the global model, weighted by validation examples."""

    def points(run: MeasuredRun) -> Points:
        return [(each["number"], each["mean"][key]) for each in run.rounds if each["mean"]]

    return points


def _over(of: Callable[[Evenness], float], key: str = "rougeL") -> Callable[[MeasuredRun], Points]:
    """A fairness figure over the devices. Devices count alike."""

    def points(run: MeasuredRun) -> Points:
        return [
            (each["number"], of(fairness))
            for each in run.rounds
            if (fairness := evenness({name: row[key] for name, row in each["devices"].items()}))
        ]

    return points


def _used(measure: str) -> Callable[[MeasuredRun], Points]:
    """Each device's final model: the personalised one if there is one, else the shared one.

    Devices count alike.
    """

    def points(run: MeasuredRun) -> Points:
        return [
            (each["number"], statistics.fmean(_personal_or_shared(row, measure) for row in rows))
            for each in run.rounds
            if (rows := list(each["devices"].values()))
        ]

    return points


def _personal_or_shared(row: Mapping[str, Any], measure: str) -> float:
    return float(row.get("more", {}).get(f"personal_{measure}", row[measure]))


def _worst_loss(of: Callable[[Mapping[str, Any], str], float]) -> Callable[[MeasuredRun], Points]:
    """The highest loss of a device; ``of`` picks the model of its row."""

    def points(run: MeasuredRun) -> Points:
        return [
            (each["number"], max(of(row, "loss") for row in each["devices"].values()))
            for each in run.rounds
            if each["devices"]
        ]

    return points


def _per_round(key: str) -> Callable[[MeasuredRun], Points]:
    """A figure of the rounds that have it."""

    def points(run: MeasuredRun) -> Points:
        return [(each["number"], each[key]) for each in run.rounds if each[key] is not None]

    return points


def _reported(key: str) -> Callable[[MeasuredRun], Points]:
    """A figure that devices report about their training: the mean of those that report it."""

    def points(run: MeasuredRun) -> Points:
        reports = [(each["number"], each.get("measured", {}).values()) for each in run.rounds]
        known = [(number, [row[key] for row in rows if key in row]) for number, rows in reports]
        return [(number, statistics.fmean(values)) for number, values in known if values]

    return points


def _reward_gains(run: MeasuredRun) -> Points:
    before, after = (dict(_reported(f"reward_{when}")(run)) for when in ("before", "after"))
    return [(number, after[number] - value) for number, value in before.items()]


def _plan_mean(key: str) -> Callable[[MeasuredRun], Points]:
    """The mean of a figure over the devices' plans: one point, at round 1."""

    def points(run: MeasuredRun) -> Points:
        values = [plan[key] for plan in run.plans.values()]
        return [(1, statistics.fmean(values))] if values else []

    return points


def _total(key: str) -> Callable[[MeasuredRun], Points]:
    """Cumulative megabytes (10**6) of all devices, per round."""

    def points(run: MeasuredRun) -> Points:
        sums = accumulate(each[key] for each in run.rounds)
        return [(each["number"], total / 1e6) for each, total in zip(run.rounds, sums, strict=True)]

    return points


def _reached(run: MeasuredRun) -> Points:
    """The first evaluated round at or below the target loss; no point if there is none."""
    rounds = [number for number, loss in _mean("loss")(run) if loss <= run.target]
    return [(rounds[0], float(rounds[0]))] if rounds else []


METRICS: dict[str, Metric] = {
    "loss": Metric("Loss", "nats per token", "lower", 4, _mean("loss")),
    "rouge1": Metric("ROUGE-1", "F1, %", "higher", 2, _mean("rouge1")),
    "rouge2": Metric("ROUGE-2", "F1, %", "higher", 2, _mean("rouge2")),
    "rougeL": Metric("ROUGE-L", "F1, %", "higher", 2, _mean("rougeL")),
    "worst": Metric("Worst device", "ROUGE-L, %", "higher", 2, _over(lambda e: e.worst)),
    "worst_loss": Metric("Worst device", "loss", "lower", 4, _worst_loss(operator.getitem)),
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
        "Worst device", "loss of the model it uses", "lower", 4, _worst_loss(_personal_or_shared)
    ),
    "reward_before": Metric(
        "Own reward, shared model", "mean over devices", "higher", 4, _reported("reward_before")
    ),
    "reward_after": Metric(
        "Own reward, own model", "mean over devices", "higher", 4, _reported("reward_after")
    ),
    "reward_gain": Metric("Own reward", "own less shared model", "higher", 4, _reward_gains),
    "plan_matrices": Metric(
        "Matrices adapted", "mean over devices", "", 1, _plan_mean("matrices"), over_rounds=False
    ),
    "plan_rank": Metric("Rank of those", "mean", "", 1, _plan_mean("rank"), over_rounds=False),
    "plan_memory": Metric(
        "Planned memory",
        "MB, mean over devices",
        "lower",
        1,
        _plan_mean("memory_mb"),
        over_rounds=False,
    ),
    "plan_score": Metric(
        "Planned score", "share kept, mean", "higher", 3, _plan_mean("score"), over_rounds=False
    ),
    "bytes_up": Metric("Sent up", "MB", "lower", 2, _total("bytes_up")),
    "bytes_down": Metric("Sent down", "MB", "lower", 2, _total("bytes_down")),
    "aggregation_error": Metric(
        "Aggregation error",
        "mean over rounds",
        "lower",
        4,
        _per_round("aggregation_error"),
        statistics.fmean,
    ),
    "rounds_to_target": Metric(
        "Rounds to target loss", "", "lower", 1, _reached, over_rounds=False
    ),
    "seconds": Metric("Time", "s", "", 0, _per_round("seconds"), sum),
}
CURVES = tuple(name for name, metric in METRICS.items() if metric.over_rounds)
