"""Totals of a job over its rounds: scores, MFU, bytes, energy, traffic and remaining time."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Sum
from django.utils import timezone

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import ENDED, RoundPhase
from webapp.jobs.analysis.json_types import (
    EnergyJson,
    RoundJson,
    TilesJson,
    TrafficJson,
    TrainingJson,
)
from webapp.jobs.models import Assignment, Job, Round
from webapp.jobs.round_records import MeanScores

NO_TRAFFIC: TrafficJson = {"down": None, "up": None, "granularity": None, "round": None}
ENDED_PHASES = tuple(phase.value for phase in ENDED)


def remaining_s(
    job: Job, current: Round | None, rounds: Sequence[RoundJson], total: int
) -> float | None:
    """Seconds until the job ends, by its last five rounds; None before the first has closed."""
    if job.phase != JobPhase.RUNNING:
        return None
    closed = [row for row in rounds if row["number"] and row["phase"] == RoundPhase.CLOSED.value]
    durations = [row["duration_s"] for row in closed if row["duration_s"] is not None][-5:]
    if not durations:
        return None
    mean_s = sum(durations) / len(durations)
    elapsed_s = 0.0
    if current is not None and current.phase not in ENDED_PHASES and current.started_at is not None:
        elapsed_s = min(mean_s, (timezone.now() - current.started_at).total_seconds())
    return float(round(max(0.0, (total - len(closed)) * mean_s - elapsed_s)))


def tiles(job: Job, rounds: Sequence[RoundJson]) -> TilesJson:
    """The figures at the top of the job's page. MFU is weighted by each training's peak FLOP."""
    evaluations = [row["evaluation"] for row in rounds]
    scored = [item for item in evaluations if item.get("rougeL") is not None]
    last: MeanScores = scored[-1] if scored else {}
    base: MeanScores = evaluations[0] if rounds and rounds[0]["number"] == 0 else {}
    sums = Assignment.objects.filter(round__job=job).aggregate(
        up=Sum("bytes_up", default=0), down=Sum("bytes_down", default=0)
    )
    trainings = [item for row in rounds for item in row["train"]]
    used = peak = 0.0
    for item in trainings:
        if item["mfu"] is not None:
            used += item["mfu"] * item["compute_s"] * item["peak"]
            peak += item["compute_s"] * item["peak"]
    return {
        "rougeL": last.get("rougeL"),
        "rougeL_base": base.get("rougeL"),
        "loss": last.get("loss"),
        "loss_base": base.get("loss"),
        "mfu": used / peak if peak else None,
        "bytes_up": sums["up"],
        "bytes_down": sums["down"],
        "tokens": sum(item["tokens"] for item in trainings),
        **_energy(trainings),
    }


def _energy(trainings: Sequence[TrainingJson]) -> EnergyJson:
    """Joules of the trainings with known energy, and tokens per joule of those that report it."""
    known = [item for item in trainings if item["energy_j"]]
    tokens = joules = 0.0
    for item in known:
        if item["eta_e"]:
            tokens += item["tokens"]
            joules += item["tokens"] / item["eta_e"]
    return {
        "joules": sum(item["energy_j"] or 0.0 for item in known) if known else None,
        "joules_estimated": sum(item["energy_estimated"] for item in known),
        "joules_of": len(known),
        "trainings": sum(item["compute_s"] > 0 for item in trainings),
        "eta_e": tokens / joules if joules else None,
    }


def traffic_by_slot(rounds: Sequence[RoundJson]) -> dict[int, TrafficJson]:
    """Bytes of all tasks of a device, and G of the last training that has one."""
    traffic: dict[int, TrafficJson] = {}
    for row in rounds:
        for item in (*row["train"], *row["fold"], *row["evaluate"]):
            total = traffic.setdefault(item["slot"], NO_TRAFFIC.copy())
            if item["bytes_down"] is not None:
                total["down"] = (total["down"] or 0) + item["bytes_down"]
            if item["bytes_up"] is not None:
                total["up"] = (total["up"] or 0) + item["bytes_up"]
        for training in row["train"]:
            if training["granularity"] is not None:
                total = traffic[training["slot"]]
                total |= {"granularity": training["granularity"], "round": row["number"]}
    return traffic


def newest_reports(rounds: Sequence[RoundJson]) -> dict[int, TrainingJson]:
    """By slot: the last training that reported an MFU."""
    reports: dict[int, TrainingJson] = {}
    for row in rounds:
        reports.update({item["slot"]: item for item in row["train"] if item["mfu"] is not None})
    return reports
