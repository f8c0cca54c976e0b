"""One round as its page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fedcore.rounds.types import ACTIVE, DELIVERED, RoundPhase, Task
from webapp.common.units import number
from webapp.devices.models import Device
from webapp.jobs.analysis.device_history import peaks_of
from webapp.jobs.analysis.device_metrics import training_figures
from webapp.jobs.analysis.device_rewards import REWARDED
from webapp.jobs.analysis.scores import PERSONAL
from webapp.jobs.models import Assignment, Round

Json = dict[str, Any]
AT_WORK = tuple(phase.value for phase in ACTIVE)
DELIVERED_WORDS = tuple(phase.value for phase in DELIVERED)
IN_TURN = tuple(task.value for task in (Task.TRAIN, Task.FOLD, Task.EVALUATE))
SCORES = ("loss", "rouge1", "rouge2", "rougeL", "examples")
# Share of a round that is over once its phase is reached, before the devices' own progress counts.
REACHED = {
    RoundPhase.PLANNED.value: 0.0,
    RoundPhase.BROADCASTING.value: 0.0,
    RoundPhase.COLLECTING.value: 0.0,
    RoundPhase.FOLDING.value: 0.75,
    RoundPhase.AGGREGATING.value: 0.75,
    RoundPhase.EVALUATING.value: 0.8,
    RoundPhase.CLOSED.value: 1.0,
    RoundPhase.FAILED.value: 0.0,
}


def round_json(row: Round) -> Json:
    """A round with what each device did in it. ``assignments`` must be prefetched."""
    parts = list(row.assignments.all())
    train = [_trained(part, row) for part in parts if part.task == Task.TRAIN.value]
    compute = sum(part["compute_s"] for part in train)
    communication = sum(part["download_s"] + part["upload_s"] for part in train)
    return {
        "id": row.pk,
        "number": row.number,
        "attempt": row.attempt,
        "phase": row.phase,
        "reason": row.reason,
        "started_at": _iso(row.started_at),
        "collected_at": _iso(row.collected_at),
        "aggregated_at": _iso(row.aggregated_at),
        "ended_at": _iso(row.ended_at),
        "deadline_at": _iso(row.deadline_at),
        "duration_s": _between(row.started_at, row.ended_at),
        "evaluation": {
            key: row.evaluation[key] for key in (*SCORES, *PERSONAL) if key in row.evaluation
        },
        "compute_s": compute,
        "communication_s": communication,
        "granularity": compute / communication if communication else None,
        "aggregation_error": number(row.fold.get("aggregation_error")),
        "updates": row.fold.get("updates", []),
        "clusters": row.fold.get("clusters", []),
        "train": train,
        "fold": [_travelled(part) for part in parts if part.task == Task.FOLD.value],
        "evaluate": [_scored(part) for part in parts if part.task == Task.EVALUATE.value],
    }


def _common(part: Assignment) -> Json:
    return {
        "slot": part.slot,
        "attempt": part.attempt,
        "phase": part.phase,
        "reason": part.reason,
        "offered_at": _iso(part.offered_at),
        "accepted_at": _iso(part.accepted_at),
        "ended_at": _iso(part.ended_at),
    }


def _trained(part: Assignment, row: Round) -> Json:
    work = training_figures(part)
    rewards = {key: getattr(work, key) for key in REWARDED if key in part.metrics}
    return {
        **_common(part),
        **rewards,
        "staleness": None if part.buffered_in is None else part.buffered_in - row.number,
        "download_s": work.download_s or 0.0,
        "compute_s": work.compute_s or 0.0,
        "upload_s": work.upload_s or 0.0,
        "wait_s": work.wait_s or 0.0,
        "phase_s": work.phase_s,
        "loss": work.loss,
        "mfu": work.mfu,
        "peak": work.peak_flops or 0.0,
        "precision": work.precision,
        "tokens": work.tokens or 0.0,
        "granularity": work.granularity,
        "energy_j": work.joules,
        "energy_estimated": work.is_estimated,
        "eta_e": work.eta_e,
        "examples": part.examples,
        "bytes_up": work.up_bytes,
        "bytes_down": work.down_bytes,
        "at_socket": work.at_socket,
    }


def _travelled(part: Assignment) -> Json:
    work = training_figures(part)
    return {**_common(part), "bytes_up": work.up_bytes, "bytes_down": work.down_bytes}


def _scored(part: Assignment) -> Json:
    work = training_figures(part)
    named = (*SCORES, *(key for key in PERSONAL if key in part.metrics))
    scores = {key: _number(part.metrics, key) for key in named}
    return {**_common(part), **scores, "bytes_up": work.up_bytes, "bytes_down": work.down_bytes}


def newest_assignments(current: Round | None) -> dict[int, Assignment]:
    """The assignment of each slot that says what its device does in this round."""
    if current is None:
        return {}
    newest: dict[int, Assignment] = {}
    for part in current.assignments.all():
        held = newest.get(part.slot)
        if held is None or _order(part) > _order(held):
            newest[part.slot] = part
    return newest


def _order(part: Assignment) -> tuple[int, int]:
    return IN_TURN.index(part.task), part.attempt


def held_assignments(rows: Sequence[Round]) -> dict[int, Assignment]:
    """The same over several rounds, of which what a device works on says more than what is over."""
    found: dict[int, Assignment] = {}
    for row in rows:
        for slot, part in newest_assignments(row).items():
            held = found.get(slot)
            if held is None or part.phase in AT_WORK or held.phase not in AT_WORK:
                found[slot] = part
    return found


def doing(device: Device, part: Assignment | None) -> Json:
    """What a device does in the newest round: its task, phase and step."""
    if part is None:
        return {"task": "", "phase": "not asked", "step": None, "steps": None, "reason": ""}
    mine = device.activity.get("assignment") == str(part.pk)
    held = part.phase in ("accepted", "training", "uploading")
    live = device.activity if mine and held else {}
    return {
        "task": part.task,
        "phase": str(live.get("phase") or part.phase),
        "step": _number(live, "step"),
        "steps": _number(live, "steps_total"),
        "reason": part.reason,
    }


def peak_of(device: Device, report: Json | None) -> Json:
    """The denominator of the device's MFU: from its last report, else from its profile."""
    if report is not None and report["peak"]:
        return {"peak_flops": report["peak"], "precision": report["precision"]}
    known = peaks_of(device.profile)
    name = "bf16" if known.get("bf16") else "fp32"
    return {"peak_flops": known.get(name), "precision": name if known.get(name) else ""}


def progress(current: Round, devices: Mapping[int, Device]) -> float:
    """Share of the round that is done: phases weighted, within them the devices' own steps."""
    reached = REACHED[current.phase]
    evaluating = current.phase == RoundPhase.EVALUATING.value
    if current.phase not in ("broadcasting", "collecting") and not evaluating:
        return reached
    parts = list(newest_assignments(current).values())
    if not parts:
        return reached
    done = sum(_share(part, devices.get(part.slot)) for part in parts) / len(parts)
    return reached + done * (0.2 if evaluating else 0.75)


def _share(part: Assignment, device: Device | None) -> float:
    if part.phase in DELIVERED_WORDS:
        return 1.0
    seen = doing(device, part) if device is not None else {}
    step, steps = seen.get("step"), seen.get("steps")
    return min(1.0, step / steps) if step and steps else 0.0


def _number(figures: Mapping[str, Any], key: str) -> float | None:
    return number(figures.get(key))


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start is not None and end is not None else None


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
