"""Live state of a job, as one JSON value for the WebSocket, the REST API and the first page load.

Closed rounds are immutable (except asynchronous rounds with work in flight), so readers cache them
in ``ClosedRounds`` and only newer rounds are read from the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db.models import Prefetch, Q

from fedcore.rounds import job_lifecycle
from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import AssignmentPhase, RoundPhase, Task
from webapp.jobs.analysis import device_rewards, device_scores, round_snapshot, round_totals
from webapp.jobs.analysis.headline import headline, open_window
from webapp.jobs.analysis.json_types import (
    BufferJson,
    CurrentRoundJson,
    DeviceJson,
    JobSnapshot,
    RoundJson,
)
from webapp.jobs.analysis.round_snapshot import ability_json, iso, round_json
from webapp.jobs.analysis.round_totals import ENDED_PHASES
from webapp.jobs.artefacts.download import available_downloads
from webapp.jobs.lifecycle.round_rows import OPEN, is_buffered
from webapp.jobs.lifecycle.site_state import site_faults
from webapp.jobs.models import Assignment, Job, Participant, Round

Participants = list[Participant]
# Details per device are read for as many of the newest rounds as give fewer entries than this.
MAX_DETAILS = 4000


@dataclass
class ClosedRounds:
    """The first rounds of a job, up to the last immutable one, by primary key."""

    ended: dict[int, RoundJson] = field(default_factory=dict)


def snapshot(job: Job, closed: ClosedRounds | None = None) -> JobSnapshot:
    """Everything that a job's page shows, except samples and events."""
    participants = list(
        Participant.objects.filter(job=job).select_related("device").order_by("slot")
    )
    faults = site_faults()
    rows = _rows_to_read(job, len(participants), closed)
    current = rows[-1] if rows else None
    rounds = _round_values(rows, closed)
    names = {row.slot: row.device.name for row in participants}
    total = int(job.spec.get("rounds", 1))
    return {
        "id": str(job.pk),
        "name": job.name,
        "phase": job.phase,
        "reason": job.reason,
        "headline": headline(job, current, participants, faults),
        "site": [fault.text for fault in faults],
        "round": _current_round(current, total),
        "buffer": _buffer(current),
        "progress": progress(job, current, participants, total),
        "eta_s": round_totals.remaining_s(job, current, rounds, total),
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "ended_at": iso(job.ended_at),
        "tiles": round_totals.tiles(job, rounds),
        "devices": _devices(job, participants, current, rounds),
        "evenness": device_scores.score_evenness(names, rounds),
        "rounds": rounds,
        "moves": moves(job),
        "artefacts": available_downloads(job),
    }


def moves(job: Job) -> list[str]:
    """The moves that a person can make now."""
    phase = JobPhase(job.phase)
    return [
        move for move in job_lifecycle.PERSON_MOVES if not job_lifecycle.move_refusal(phase, move)
    ]


def progress(job: Job, current: Round | None, participants: Participants, total: int) -> float:
    """Share of the job that is done, from 0 to 1."""
    if job.phase == JobPhase.COMPLETED:
        return 1.0
    if current is None:
        return 0.0
    buffer = _buffer(current)
    if buffer is not None and current.phase == RoundPhase.COLLECTING.value:
        within = 0.75 * min(1.0, float(buffer["held"]) / float(buffer["size"]))
    else:
        within = round_snapshot.progress(current, {row.slot: row.device for row in participants})
    return max(0.0, min(1.0, (max(0, current.number - 1) + within) / max(1, total)))


def _buffer(current: Round | None) -> BufferJson | None:
    """The buffer of an asynchronous job; None for any other."""
    if current is None or not is_buffered(current):
        return None
    buffered = Assignment.objects.filter(
        round__job_id=current.job_id,
        task=Task.TRAIN.value,
        phase=AssignmentPhase.REPORTED.value,
    )
    return {"size": current.policy["buffering"]["size"], "held": buffered.count()}


def _rows_to_read(job: Job, devices: int, closed: ClosedRounds | None) -> list[Round]:
    """The rounds that are not cached, and the last cached one."""
    rounds = Round.objects.filter(job=job)
    if closed is not None and closed.ended:
        rounds = rounds.filter(~Q(phase__in=ENDED_PHASES) | Q(pk__gte=max(closed.ended)))
    detailed = max(20, MAX_DETAILS // max(1, 2 * devices))
    newest = list(rounds.order_by("-number", "-attempt").values_list("pk", flat=True)[:detailed])
    assignments = Assignment.objects.filter(round__in=newest).order_by("slot", "attempt")
    rows = rounds.order_by("number", "attempt")
    return list(rows.prefetch_related(Prefetch("assignments", queryset=assignments)))


def _round_values(rows: list[Round], closed: ClosedRounds | None) -> list[RoundJson]:
    """All rounds; those that became immutable are added to ``closed``."""
    if closed is None:
        return [round_json(row) for row in rows]
    immutable, open_ = True, []
    for row in rows:
        immutable = immutable and row.phase in ENDED_PHASES
        if immutable and is_buffered(row):
            # Devices may still train on a closed asynchronous round, or evaluate its model.
            is_active = any(part.phase in OPEN for part in row.assignments.all())
            is_newer = any(other.evaluators and other.number > row.number for other in rows)
            immutable = not is_active and (is_newer or not row.evaluators)
        if immutable:
            closed.ended.setdefault(row.pk, round_json(row))
        else:
            open_.append(round_json(row))
    return [*closed.ended.values(), *open_]


def _current_round(current: Round | None, total: int) -> CurrentRoundJson:
    if current is None:
        return {"number": 0, "of": total, "phase": "", "attempt": 0, "deadline_at": None}
    return {
        "number": current.number,
        "of": total,
        "phase": current.phase,
        "attempt": current.attempt,
        "deadline_at": iso(current.deadline_at),
    }


def _devices(
    job: Job, participants: Participants, current: Round | None, rounds: list[RoundJson]
) -> list[DeviceJson]:
    examples = sum(row.examples for row in participants) or 1
    open_ = open_window(current) if current is not None else []
    assignments = round_snapshot.current_assignments(open_)
    traffic, scored = round_totals.traffic_by_slot(rounds), device_scores.newest_scores(rounds)
    rewards = device_rewards.newest_rewards(job, participants, rounds)
    reports = round_totals.newest_reports(rounds)
    names: dict[int | None, str] = {row.slot: row.device.name for row in participants}
    return [
        {
            "id": row.device_id,
            "slot": row.slot,
            "name": row.device.name,
            "presence": row.device.presence,
            "ability": ability_json(row.device),
            "last_seen_at": iso(row.device.last_seen_at),
            "dataset": row.dataset,
            "parent": names.get(row.parent, ""),
            "examples": row.examples,
            "share": row.examples / examples,
            **round_snapshot.device_activity(row.device, assignments.get(row.slot)),
            **round_snapshot.peak_of(row.device, reports.get(row.slot)),
            "traffic": traffic.get(row.slot, round_totals.NO_TRAFFIC),
            "score": scored.get(row.slot, device_scores.NO_SCORE),
            "reward": rewards.get(row.slot),
        }
        for row in participants
    ]
