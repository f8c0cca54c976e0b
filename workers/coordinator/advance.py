"""Advances jobs: loads a job's state, decides with ``fedcore.rounds``, stores the decision.

A pass holds a lock on the job's row, so two coordinators never decide at once. Every update is
also guarded by the phase it was decided on. Messages are sent after the commit.
"""

from __future__ import annotations

import logging
from datetime import timedelta
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
from workers.coordinator.apply import StalePhase, able_names, give_up_revoked, save

log = logging.getLogger(__name__)

MAX_PASSES = 8
RESEND_AFTER_S = 60.0
INITIALISE_LIMIT_S = 6 * 3600.0  # a large model may first be downloaded over a slow link


def advance(job_id: UUID) -> None:
    """Advance a job as far as possible now."""
    outages.record_heartbeat()
    for _ in range(MAX_PASSES):
        try:
            with transaction.atomic():
                progressed = _advance_once(job_id)
        except StalePhase:
            progressed = True  # a device was faster: decide again on the new state
        if not progressed:
            return


def apply(round_id: int, event: RoundEvent, **changes: object) -> bool:
    """Apply an aggregation worker's event to its round; ``changes`` are stored with it.

    Returns False where the round is no longer aggregating. The caller calls ``advance`` once
    everything about the event is committed.
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
    """Make one decision; returns whether another may follow at once."""
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        return False
    last = job.rounds.order_by("number", "attempt").last()
    if job.phase not in (JobPhase.QUEUED, JobPhase.RUNNING):
        # Interrupt the open round of a job that was paused or cancelled, or has failed.
        stopped = job.phase in (JobPhase.PAUSED, JobPhase.CANCELLED, JobPhase.FAILED)
        if (
            stopped
            and last is not None
            and (is_buffered(last) or RoundPhase(last.phase) not in ENDED)
        ):
            _step(job, last, Interrupted(timezone.now().timestamp(), f"the job was {job.phase}"))
        return False
    last_round = LastRound(last.number, RoundPhase(last.phase), last.reason) if last else None
    initialised = job.global_artefact_id is not None
    move = job_lifecycle.next_move(job.job_spec.rounds, initialised, last_round, job.resumed)
    if isinstance(move, job_lifecycle.Initialise):
        return _request_initial_model(job)
    if isinstance(move, job_lifecycle.StartRound):
        return _start_round(job, move.number, last)
    if isinstance(move, job_lifecycle.Complete):
        return _end(job, JobPhase.COMPLETED, "")
    if isinstance(move, job_lifecycle.Fail):
        return _end(job, JobPhase.FAILED, move.reason)
    assert last is not None
    if job.phase == JobPhase.QUEUED:  # resumed before its round was interrupted
        Job.objects.filter(pk=job.pk).update(phase=JobPhase.RUNNING.value, resumed=False)
        job.refresh_from_db()
    return _tick(job, last)


def _request_initial_model(job: Job) -> bool:
    """Ask an aggregation worker for the initial model, again if the last request seems lost."""
    now = timezone.now()
    if now - (job.queued_at or job.created_at) > timedelta(seconds=INITIALISE_LIMIT_S):
        limit = f"{INITIALISE_LIMIT_S / 3600:.0f} h"
        reason = f"no aggregation worker wrote the initial model within {limit}; is one running?"
        return _end(job, JobPhase.FAILED, reason)
    requested_at = job.initialise_requested_at
    if requested_at is None or now - requested_at > timedelta(seconds=RESEND_AFTER_S):
        Job.objects.filter(pk=job.pk).update(initialise_requested_at=now)
        send_after_commit(INITIALISE, str(job.pk))
        _log_waiting(job, "waiting for an aggregation worker to write the initial model")
    return False


def _start_round(job: Job, number: int, last: Round | None) -> bool:
    plan = planning.plan_round(job, number)
    if isinstance(plan, planning.Wait):
        if plan.too_late:
            return _end(job, JobPhase.FAILED, plan.reason)
        _log_waiting(job, plan.reason)
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
    task = "measuring the baseline" if number == 0 else f"{len(plan.members)} devices"
    job_event(job, f"round {number} started: {task}")
    job.refresh_from_db()
    _tick(job, row)
    return True


def _tick(job: Job, row: Round) -> bool:
    now = timezone.now()
    give_up_revoked(row)
    changed = _step(job, row, Tick(now.timestamp(), able_names(job)))
    if row.phase == RoundPhase.AGGREGATING.value:
        planning.request_aggregation(row, now, RESEND_AFTER_S)
    return changed and RoundPhase(row.phase) in ENDED


def _step(job: Job, row: Round, event: RoundEvent) -> bool:
    """Step the round, and the other open rounds of an asynchronous job; store the outcome."""
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
    text = phase.value
    if job.started_at:
        seconds = (now - job.started_at).total_seconds()
        text += f" after {seconds / 60:.0f} min" if seconds >= 120 else f" after {seconds:.0f} s"
    level = EventLevel.ERROR if phase is JobPhase.FAILED else EventLevel.INFO
    job_event(job, f"{text}: {reason}" if reason else text, level)
    return False


def _log_waiting(job: Job, reason: str) -> None:
    """Show what a job waits for, and log it once."""
    if job.reason != reason:
        Job.objects.filter(pk=job.pk).update(reason=reason)
        job.reason = reason
        job_event(job, reason)
