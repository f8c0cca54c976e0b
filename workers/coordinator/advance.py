"""The server's shell around the pure machines: load, decide, store, and send after the commit.

One pass works under a lock of the job's row, so two coordinators never decide at once; every update
is guarded by the phase it was decided on all the same.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from fedcore.rounds import job_lifecycle
from fedcore.rounds.buffered import step_buffered
from fedcore.rounds.job_lifecycle import JobPhase, LastRound
from fedcore.rounds.synchronous import step
from fedcore.rounds.types import ENDED, Interrupted, RoundEvent, RoundPhase, Tick
from webapp.common.task_queue import INITIALISE, send_after_commit
from webapp.common.wake import wake_job
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.round_rows import device_names, is_buffered, open_rounds, to_round
from webapp.jobs.models import EventLevel, Job, Round
from workers.coordinator import outages, planning
from workers.coordinator.apply import StalePhase, give_up_revoked, online_names, save

log = logging.getLogger(__name__)

MAX_PASSES = 8
RESEND_AFTER_S = 60.0
INITIALISE_LIMIT_S = 6 * 3600.0  # a large model may have to come over a slow line first


def advance(job_id: UUID) -> None:
    """Take a job as far as it can go now."""
    outages.record_heartbeat()
    for _ in range(MAX_PASSES):
        try:
            with transaction.atomic():
                moved = _advance_once(job_id)
        except StalePhase:
            moved = True  # a device was faster: look again at what is there now
        if not moved:
            return


def apply(round_id: int, event: RoundEvent, **changes: object) -> bool:
    """Bring an event of an aggregation worker to its round; ``changes`` are stored with it.

    False where the round has gone on without it. The caller lets the job ``advance`` once all that
    belongs to the event is committed.
    """
    with transaction.atomic():
        job = Job.objects.select_for_update().get(rounds=round_id)
        row = Round.objects.get(pk=round_id)
        if row.phase != RoundPhase.AGGREGATING.value or job.is_over:
            return False
        if changes:
            Round.objects.filter(pk=round_id).update(**changes)
            row.refresh_from_db()
        _step(job, row, event)
    return True


def _advance_once(job_id: UUID) -> bool:
    """One decision; whether another may follow at once."""
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        return False
    last = job.rounds.order_by("number", "attempt").last()
    if job.phase not in (JobPhase.QUEUED, JobPhase.RUNNING):
        return _interrupt(job, last)
    known = LastRound(last.number, RoundPhase(last.phase), last.reason) if last else None
    initialised = job.global_artefact_id is not None
    move = job_lifecycle.next_move(job.job_spec.rounds, initialised, known, job.resumed)
    if isinstance(move, job_lifecycle.Initialise):
        return _initialise(job)
    if isinstance(move, job_lifecycle.StartRound):
        return _start_round(job, move.number, last)
    if isinstance(move, job_lifecycle.Complete):
        return _end(job, JobPhase.COMPLETED, "")
    if isinstance(move, job_lifecycle.Fail):
        return _end(job, JobPhase.FAILED, move.reason)
    assert last is not None
    if job.phase == JobPhase.QUEUED:  # resumed before anybody had stopped its round
        Job.objects.filter(pk=job.pk).update(phase=JobPhase.RUNNING.value, resumed=False)
        job.refresh_from_db()
    return _tick(job, last)


def _interrupt(job: Job, last: Round | None) -> bool:
    """A person paused or cancelled the job: stop what its devices do."""
    stopped = job.phase in (JobPhase.PAUSED, JobPhase.CANCELLED, JobPhase.FAILED)
    if stopped and last is not None and (is_buffered(last) or RoundPhase(last.phase) not in ENDED):
        _step(job, last, Interrupted(timezone.now().timestamp(), f"the job was {job.phase}"))
    return False


def _initialise(job: Job) -> bool:
    """Have the first global model written; asked again while nobody has."""
    now = timezone.now()
    if now - (job.queued_at or job.created_at) > timedelta(seconds=INITIALISE_LIMIT_S):
        limit = f"{INITIALISE_LIMIT_S / 3600:.0f} h"
        text = f"no aggregation worker wrote the initial model within {limit}; is one running?"
        return _end(job, JobPhase.FAILED, text)
    asked = job.initialise_requested_at
    if asked is None or now - asked > timedelta(seconds=RESEND_AFTER_S):
        Job.objects.filter(pk=job.pk).update(initialise_requested_at=now)
        send_after_commit(INITIALISE, str(job.pk))
        _say(job, "waiting for an aggregation worker to write the initial model")
    return False


def _start_round(job: Job, number: int, last: Round | None) -> bool:
    plan = planning.plan_round(job, number)
    if isinstance(plan, planning.Wait):
        if plan.too_late:
            return _end(job, JobPhase.FAILED, plan.reason)
        _say(job, plan.reason)
        return False
    attempt = last.attempt + 1 if last is not None and last.number == number else 1
    row = Round.objects.create(
        job=job,
        number=number,
        attempt=attempt,
        members=list(plan.members),
        evaluators=list(plan.evaluators),
        policy=plan.policy,
        clusters=plan.clusters,
        base_artefact=job.global_artefact,
        started_at=timezone.now(),
    )
    changes: dict[str, object] = {"phase": JobPhase.RUNNING.value, "resumed": False, "reason": ""}
    if job.started_at is None:
        changes["started_at"] = timezone.now()
    Job.objects.filter(pk=job.pk).update(**changes)
    what = "measuring the model before training" if number == 0 else f"{len(plan.members)} devices"
    job_event(job, f"round {number} started: {what}")
    job.refresh_from_db()
    _tick(job, row)
    return True


def _tick(job: Job, row: Round) -> bool:
    now = timezone.now()
    give_up_revoked(row)
    changed = _step(job, row, Tick(now.timestamp(), online_names(job)))
    if row.phase == RoundPhase.AGGREGATING.value:
        planning.ask_for_aggregation(row, now, RESEND_AFTER_S)
    return changed and RoundPhase(row.phase) in ENDED


def _step(job: Job, row: Round, event: RoundEvent) -> bool:
    """Step the round, and what else is open in an asynchronous job, and store the outcome."""
    names = device_names(job)
    rows = open_rounds(row) if is_buffered(row) else [row]
    before = tuple(to_round(each, names) for each in rows)
    stepped = step_buffered(before, event) if is_buffered(row) else (step(before[0], event),)
    changed = [
        (each, old, new, effects)
        for each, old, (new, effects) in zip(rows, before, stepped, strict=True)
        if new != old or effects
    ]
    for each, old, new, effects in changed:
        save(job, each, old, new, effects, names)
    if changed:
        wake_job(job.pk)
    return bool(changed)


def fail_job(job_id: UUID, reason: str) -> None:
    """End a job that cannot go on, whatever it was doing."""
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job_id)
        if job.phase in (JobPhase.QUEUED, JobPhase.RUNNING):
            _end(job, JobPhase.FAILED, reason)
    advance(job_id)


def _end(job: Job, phase: JobPhase, reason: str) -> bool:
    now = timezone.now()
    Job.objects.filter(pk=job.pk, phase=job.phase).update(
        phase=phase.value, reason=reason, ended_at=now, resumed=False
    )
    took = f" after {_minutes(job.started_at, now)}" if job.started_at else ""
    level = EventLevel.ERROR if phase is JobPhase.FAILED else EventLevel.INFO
    job_event(job, f"{phase.value}{took}{': ' + reason if reason else ''}", level)
    return False


def _minutes(start: datetime, end: datetime) -> str:
    seconds = (end - start).total_seconds()
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _say(job: Job, reason: str) -> None:
    """Show what a job waits for, and log it once."""
    if job.reason != reason:
        Job.objects.filter(pk=job.pk).update(reason=reason)
        job.reason = reason
        job_event(job, reason)
