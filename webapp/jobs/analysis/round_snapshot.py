"""One round as the job's page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from fedcore.rounds.types import ACTIVE, DELIVERED, RoundPhase, Task
from webapp.common.units import number
from webapp.devices.models import Device
from webapp.jobs.analysis.device_history import peaks_of
from webapp.jobs.analysis.device_metrics import training_figures
from webapp.jobs.analysis.device_rewards import REWARDED
from webapp.jobs.analysis.device_scores import PERSONAL
from webapp.jobs.analysis.json_types import (
    AbilityJson,
    ActivityJson,
    AssignmentJson,
    EvaluationJson,
    FoldJson,
    PeakJson,
    RewardsJson,
    RoundJson,
    TrainingJson,
)
from webapp.jobs.models import Assignment, Round
from webapp.jobs.round_records import MeanScores

AT_WORK = tuple(phase.value for phase in ACTIVE)
DELIVERED_PHASES = tuple(phase.value for phase in DELIVERED)
TASK_ORDER = tuple(task.value for task in (Task.TRAIN, Task.FOLD, Task.EVALUATE))
SCORES = ("loss", "rouge1", "rouge2", "rougeL", "examples")
# Progress of a round at the start of each phase.
PHASE_START = {
    RoundPhase.PLANNED.value: 0.0,
    RoundPhase.BROADCASTING.value: 0.0,
    RoundPhase.COLLECTING.value: 0.0,
    RoundPhase.FOLDING.value: 0.75,
    RoundPhase.AGGREGATING.value: 0.75,
    RoundPhase.EVALUATING.value: 0.8,
    RoundPhase.CLOSED.value: 1.0,
    RoundPhase.FAILED.value: 0.0,
}


def round_json(row: Round) -> RoundJson:
    """A round with each device's part in it. ``assignments`` must be prefetched."""
    parts = list(row.assignments.all())
    train = [_training_json(part, row) for part in parts if part.task == Task.TRAIN.value]
    compute_s = sum(part["compute_s"] for part in train)
    communication_s = sum(part["download_s"] + part["upload_s"] for part in train)
    duration_s = None
    if row.started_at is not None and row.ended_at is not None:
        duration_s = (row.ended_at - row.started_at).total_seconds()
    return {
        "id": row.pk,
        "number": row.number,
        "attempt": row.attempt,
        "phase": row.phase,
        "reason": row.reason,
        "started_at": iso(row.started_at),
        "collected_at": iso(row.collected_at),
        "aggregated_at": iso(row.aggregated_at),
        "ended_at": iso(row.ended_at),
        "deadline_at": iso(row.deadline_at),
        "duration_s": duration_s,
        "evaluation": cast(
            MeanScores,
            {key: mean for key, mean in row.evaluation.items() if key in (*SCORES, *PERSONAL)},
        ),
        "compute_s": compute_s,
        "communication_s": communication_s,
        "granularity": compute_s / communication_s if communication_s else None,
        "aggregation_error": number(row.fold.get("aggregation_error")),
        "updates": row.fold.get("updates", []),
        "clusters": row.fold.get("clusters", []),
        "train": train,
        "fold": [_fold_json(part) for part in parts if part.task == Task.FOLD.value],
        "evaluate": [_evaluation_json(part) for part in parts if part.task == Task.EVALUATE.value],
    }


def _assignment_json(part: Assignment) -> AssignmentJson:
    return {
        "slot": part.slot,
        "attempt": part.attempt,
        "phase": part.phase,
        "reason": part.reason,
        "offered_at": iso(part.offered_at),
        "accepted_at": iso(part.accepted_at),
        "ended_at": iso(part.ended_at),
    }


def _training_json(part: Assignment, row: Round) -> TrainingJson:
    figures = training_figures(part)
    rewards: RewardsJson = {}
    for key in REWARDED:
        if key in part.metrics:
            rewards[key] = getattr(figures, key)
    return {
        **_assignment_json(part),
        **rewards,
        "staleness": None if part.buffered_in is None else part.buffered_in - row.number,
        "download_s": figures.download_s or 0.0,
        "compute_s": figures.compute_s or 0.0,
        "upload_s": figures.upload_s or 0.0,
        "wait_s": figures.wait_s or 0.0,
        "phase_s": figures.phase_s,
        "loss": figures.loss,
        "mfu": figures.mfu,
        "peak": figures.peak_flops or 0.0,
        "precision": figures.precision,
        "tokens": figures.tokens or 0.0,
        "granularity": figures.granularity,
        "energy_j": figures.joules,
        "energy_estimated": figures.is_estimated,
        "eta_e": figures.eta_e,
        "examples": part.examples,
        "bytes_up": figures.up_bytes,
        "bytes_down": figures.down_bytes,
        "at_socket": figures.at_socket,
    }


def _fold_json(part: Assignment) -> FoldJson:
    figures = training_figures(part)
    return {
        **_assignment_json(part),
        "bytes_up": figures.up_bytes,
        "bytes_down": figures.down_bytes,
    }


def _evaluation_json(part: Assignment) -> EvaluationJson:
    keys = (*SCORES, *(key for key in PERSONAL if key in part.metrics))
    scores = {key: number(part.metrics.get(key)) for key in keys}
    return cast(EvaluationJson, {**_fold_json(part), **scores})


def newest_assignments(current: Round | None) -> dict[int, Assignment]:
    """Each slot's assignment that shows what its device does in this round."""
    if current is None:
        return {}
    newest: dict[int, Assignment] = {}
    for part in current.assignments.all():
        other = newest.get(part.slot)
        if other is None or _order(part) > _order(other):
            newest[part.slot] = part
    return newest


def _order(part: Assignment) -> tuple[int, int]:
    return TASK_ORDER.index(part.task), part.attempt


def current_assignments(rows: Sequence[Round]) -> dict[int, Assignment]:
    """The same over several rounds; an active assignment takes precedence over a finished one."""
    current: dict[int, Assignment] = {}
    for row in rows:
        for slot, part in newest_assignments(row).items():
            other = current.get(slot)
            if other is None or part.phase in AT_WORK or other.phase not in AT_WORK:
                current[slot] = part
    return current


def device_activity(device: Device, part: Assignment | None) -> ActivityJson:
    """Task, phase and step of a device in the newest round."""
    if part is None:
        return {"task": "", "phase": "not asked", "step": None, "steps": None, "reason": ""}
    reported = device.activity.get("assignment") == str(part.pk)
    working = part.phase in ("accepted", "training", "uploading")
    activity: Mapping[str, Any] = device.activity if reported and working else {}
    return {
        "task": part.task,
        "phase": str(activity.get("phase") or part.phase),
        "step": number(activity.get("step")),
        "steps": number(activity.get("steps_total")),
        "reason": part.reason,
    }


def ability_json(device: Device) -> AbilityJson:
    """The device's reason (``webapp.devices.ability``), empty where it has none."""
    reason = device.ability
    return {"reason": str(reason or ""), "blocks": bool(reason and reason.blocks)}


def peak_of(device: Device, report: TrainingJson | None) -> PeakJson:
    """The peak from the device's last report, else from its profile."""
    if report is not None and report["peak"]:
        return {"peak_flops": report["peak"], "precision": report["precision"]}
    peaks = peaks_of(device.profile)
    precision = "bf16" if peaks.get("bf16") else "fp32"
    peak = peaks.get(precision)
    return {"peak_flops": peak, "precision": precision if peak else ""}


def progress(current: Round, devices: Mapping[int, Device]) -> float:
    """Share of the round that is done: its phase, and within it the devices' steps."""
    start = PHASE_START[current.phase]
    evaluating = current.phase == RoundPhase.EVALUATING.value
    if current.phase not in ("broadcasting", "collecting") and not evaluating:
        return start
    parts = list(newest_assignments(current).values())
    if not parts:
        return start
    done = 0.0
    for part in parts:
        device = devices.get(part.slot)
        if part.phase in DELIVERED_PHASES:
            done += 1.0
        elif device is not None:
            activity = device_activity(device, part)
            step, steps = activity["step"], activity["steps"]
            done += min(1.0, step / steps) if step and steps else 0.0
    return start + done / len(parts) * (0.2 if evaluating else 0.75)


def iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
