"""Local-only baselines of a job: started by an operator, visible to all.

Each baseline's participant is fixed when it is created: same slot, data and overrides, so seeds,
validation examples and trained parameters are those of the federated job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypedDict
from uuid import UUID

from django.db import transaction
from django.utils.text import capfirst

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import Task
from fedcore.spec.local_baseline import Compared, alone_seat, alone_spec, refusal, summary
from webapp.accounts.models import User
from webapp.devices.models import DeviceRole
from webapp.jobs.analysis.baseline_scores import (
    DELIVERED_PHASES,
    FinalScores,
    baselines_of,
    compare,
    final_scores,
    is_complete,
)
from webapp.jobs.analysis.device_metrics import training_figures
from webapp.jobs.analysis.json_types import JobSummary
from webapp.jobs.analysis.summaries import job_summaries
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.services import MoveRefused, create_job, move, user_name
from webapp.jobs.lifecycle.transitions import lock_job
from webapp.jobs.models import Assignment, Job, Participant

REPEATABLE = (JobPhase.FAILED.value, JobPhase.CANCELLED.value)
OVER = (JobPhase.COMPLETED.value, *REPEATABLE)
COST_ROUNDS = 5  # newest rounds that the cost of a baseline is estimated from


class BaselineState(TypedDict):
    """A device's baseline: phase of its job ("gone" or "not asked" without one), and why."""

    slot: int
    device_id: int
    state: str
    reason: str
    progress: float
    can_ask: bool
    alone_job: str | None


class BaselineComparison(TypedDict):
    """``devices``: scores (``Compared.to_dict``) with a BaselineState each.

    ``open``: some baselines still run; ``can_ask``: a request would start some, for about
    ``cost_s`` of the slowest device (None: unknown). ``refused``: why there can be none.
    """

    job: str
    refused: str
    asked: bool
    open: bool
    can_ask: bool
    cost_s: float | None
    devices: list[dict[str, Any]]
    summary: dict[str, Any]


def why_not_comparable(job: Job) -> str:
    """Why this job cannot have local-only baselines; "" if it can."""
    if job.alone_of_id is not None:
        return "this is itself a local-only baseline; compare the job that it belongs to"
    if job.phase != JobPhase.COMPLETED.value:
        return (
            f"a {job.phase} job cannot be compared with training alone; that needs a job that is "
            "completed"
        )
    if reason := refusal(job.job_spec):
        return reason
    if not final_scores([job])[job.pk]:
        return "no device evaluated the model of the last round, so there is nothing to compare"
    return ""


def start_baseline(job_id: UUID, user: User | None) -> None:
    """Start the missing baseline of every training device. Raises MoveRefused.

    A failed one is retried, a cancelled one launched anew; a repeated request changes nothing.
    """
    with transaction.atomic():
        lock_job(job_id)
        job = Job.objects.get(pk=job_id)
        if reason := why_not_comparable(job):
            raise MoveRefused(reason)
        list(Job.objects.select_for_update().filter(alone_of=job).values_list("pk"))
        trainers, baselines = _training_participants(job), baselines_of(job)
        able = {slot: row for slot, row in trainers.items() if not _unavailable(row)}
        if not able and not baselines:
            raise MoveRefused("; ".join(_unavailable(row) for row in trainers.values()))
        missing = [
            slot for slot in able if slot not in baselines or baselines[slot].phase in REPEATABLE
        ]
        for slot in missing:
            baseline = baselines.get(slot)
            if baseline is not None and baseline.phase == JobPhase.FAILED.value:
                move(baseline.pk, "retry", user)
            else:
                _create_baseline(job, able[slot], user)
        if missing:
            names = ", ".join(able[slot].device.name for slot in missing)
            job_event(
                job,
                f"local-only baseline (training alone) of {names}: started by {user_name(user)}",
            )


def _create_baseline(job: Job, participant: Participant, user: User | None) -> None:
    """The participant is stored at once, so that the coordinator cannot choose another."""
    seat = alone_seat(participant.slot, participant.tailoring)
    spec = alone_spec(job.job_spec, participant.device.name)
    baseline = create_job(spec, user, overrides_known=True)
    Job.objects.filter(pk=baseline.pk).update(alone_of=job)
    Participant.objects.create(
        job=baseline,
        device=participant.device,
        slot=seat.slot,
        dataset=participant.dataset,
        examples=participant.examples,
        tailoring=dict(seat.tailoring),
    )


def _training_participants(job: Job) -> dict[int, Participant]:
    rows = Participant.objects.filter(job=job).select_related("device")
    rows = rows.prefetch_related("device__datasets").order_by("slot")
    return {row.slot: row for row in rows if row.trains}


def _unavailable(participant: Participant) -> str:
    """Why a participant can no longer train; "" if it can."""
    device = participant.device
    if device.revoked_at is not None:
        return f"{device.name} is revoked"
    if device.role == DeviceRole.AGGREGATOR:
        return f"{device.name} is an aggregator now, which does not train"
    if participant.dataset not in [dataset.name for dataset in device.datasets.all()]:
        return f"{device.name} no longer has the dataset {participant.dataset}"
    return ""


def comparison_json(job: Job) -> BaselineComparison:
    """Each device's scores in the job and alone, the state of its baseline, and the mean gain."""
    refused, baselines = why_not_comparable(job), baselines_of(job)
    trainers = _training_participants(job) if not refused or baselines else {}
    scores = final_scores([job, *baselines.values()])
    jobs = Job.objects.filter(pk__in=[baseline.pk for baseline in baselines.values()])
    summaries = {item["id"]: item for item in job_summaries(jobs)}
    rows: list[Compared] = []
    states: list[BaselineState] = []
    for slot, participant in trainers.items():
        baseline = baselines.get(slot)
        complete = baseline is not None and is_complete(baseline)
        alone = scores[baseline.pk].get(slot) if baseline is not None and complete else None
        row, state = _device_row(participant, scores[job.pk].get(slot), baseline, alone, summaries)
        rows.append(row)
        states.append(state)
    can_ask = not refused and any(state["can_ask"] for state in states)
    return {
        "job": str(job.pk),
        "refused": refused,
        "asked": bool(baselines),
        "open": any(baseline.phase not in OVER for baseline in baselines.values()),
        "can_ask": can_ask,
        "cost_s": _cost_s(job) if can_ask else None,
        "devices": [{**row.to_dict(), **state} for row, state in zip(rows, states, strict=True)],
        "summary": summary(rows),
    }


def _device_row(
    participant: Participant,
    federated: FinalScores | None,
    baseline: Job | None,
    alone: FinalScores | None,
    summaries: Mapping[str, JobSummary],
) -> tuple[Compared, BaselineState]:
    unavailable = _unavailable(participant)
    state, reason, progress = "gone" if unavailable else "not asked", unavailable, 0.0
    if baseline is not None:
        item = summaries[str(baseline.pk)]
        state, progress = baseline.phase, item["progress"]
        text = baseline.reason if baseline.phase in REPEATABLE else item["headline"]
        reason = "" if is_complete(baseline) else capfirst(text)
    row, not_comparable = compare(participant.device.name, federated, alone)
    return row, {
        "slot": participant.slot,
        "device_id": participant.device_id,
        "state": state,
        "reason": reason or not_comparable,
        "progress": progress,
        "can_ask": not unavailable and (baseline is None or baseline.phase in REPEATABLE),
        "alone_job": str(baseline.pk) if baseline else None,
    }


def _cost_s(job: Job) -> float | None:
    """Seconds of the slowest device for all rounds, by the mean of its last trainings."""
    rounds = int(job.spec.get("rounds", 1))
    trainings = Assignment.objects.filter(
        round__job=job,
        round__number__gt=rounds - COST_ROUNDS,
        task=Task.TRAIN.value,
        phase__in=DELIVERED_PHASES,
    )
    durations: dict[int, list[float]] = {}
    for training in trainings:
        figures = training_figures(training)
        busy_s = (figures.compute_s or 0.0) + (figures.communication_s or 0.0)
        durations.setdefault(training.slot, []).append(busy_s)
    means = [sum(values) / len(values) for values in durations.values()]
    return rounds * max(means) if means and max(means) > 0 else None


def etag(comparison: BaselineComparison) -> str:
    """Changes when the comparison changes."""
    return hashlib.sha256(json.dumps(comparison, sort_keys=True).encode()).hexdigest()[:12]
