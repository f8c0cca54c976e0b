"""Guarded updates of assignments.

A phase moves only from the phase that was read; the number of updated rows shows which of two
concurrent writers won.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from django.core.cache import cache
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from fedcore.rounds.queries import may_resume, move_refusal
from fedcore.rounds.types import ACTIVE, LEASED, SILENT, AssignmentPhase
from webapp.common.background import in_background
from webapp.common.task_queue import ADVANCE, send
from webapp.common.wake import wake_job
from webapp.devices.models import Device
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.round_rows import assignment_key, to_round
from webapp.jobs.models import Assignment, EventLevel, Job, Round

# As long as a lost message can delay a job: the reconcile pass comes about as soon.
REQUEST_TTL_S = 2
_EXPIRED = AssignmentPhase.EXPIRED.value


class AssignmentRefused(Exception):
    """The assignment's phase does not allow this call of its device; the text says why."""


def request_advance(job_id: UUID) -> None:
    """Have the coordinator advance a job and live pages refresh, after the commit."""
    transaction.on_commit(partial(in_background, partial(_send_advance, job_id)))
    wake_job(job_id)


def _send_advance(job_id: UUID) -> None:
    """Send one message until a coordinator starts: it will read this change as well.

    Otherwise a thousand devices that report at once would queue a thousand decisions.
    """
    if cache.add(_request_key(job_id), 1, REQUEST_TTL_S):
        send(ADVANCE, str(job_id))


def clear_advance_request(job_id: UUID) -> None:
    """The coordinator reads the job's rows now; a later change needs a message of its own."""
    cache.delete(_request_key(job_id))


def _request_key(job_id: UUID) -> str:
    return f"asked-to-look:{job_id}"


def lock_job(job_id: UUID) -> None:
    """Lock a job's row until the transaction ends.

    A transaction that changes assignments and the job's log must take this lock first, as the
    coordinator does. The other order would deadlock.
    """
    list(Job.objects.select_for_update().filter(pk=job_id).values_list("pk"))


def move_assignment(assignment: Assignment, target: AssignmentPhase, **changes: object) -> None:
    """Move an assignment at its device's request. Raises AssignmentRefused with the reason.

    A measurement of the same device may move it concurrently; then the phase is read again.
    """
    for _ in range(len(AssignmentPhase)):  # phases only go forward
        refusal = move_refusal(AssignmentPhase(assignment.phase), target)
        if refusal:
            raise AssignmentRefused(refusal)
        unmoved = Assignment.objects.filter(pk=assignment.pk, phase=assignment.phase)
        if unmoved.update(phase=target.value, **changes):
            assignment.phase = target.value
            return
        assignment.refresh_from_db(fields=["phase"])
    raise AssignmentRefused("this assignment keeps changing; try again")


def renew_lease(assignment_id: UUID, device: Device, lease_s: float) -> bool:
    """Extend the lease by ``lease_s``; False where the device no longer holds the assignment."""
    until = timezone.now() + timedelta(seconds=lease_s)
    leased = Assignment.objects.filter(
        pk=assignment_id, device=device, phase__in=[phase.value for phase in LEASED]
    )
    return bool(leased.update(lease_until=until))


def renew_leases(assignments: Sequence[Assignment]) -> None:
    """Extend the leases of locked assignments, and write the phases that they have."""
    now = timezone.now()
    for assignment in assignments:
        lease_s = float(assignment.round.policy.get("lease_s", 60.0))
        assignment.lease_until = now + timedelta(seconds=lease_s)
    Assignment.objects.bulk_update(assignments, ["phase", "lease_until"])


def take_back(assignment: Assignment) -> None:
    """Resume an assignment that expired only because its device was silent, if it still helps."""
    if not (assignment.phase == _EXPIRED and assignment.reason.startswith(SILENT)):
        return
    with transaction.atomic():
        lock_job(assignment.round.job_id)
        row = Round.objects.select_related("job").get(pk=assignment.round_id)
        state = to_round(row)
        key = (assignment.device.name, assignment.task, assignment.attempt)
        expired = (item for item in state.assignments if assignment_key(item) == key)
        if not any(may_resume(state, item) for item in expired):
            return
        lease_s = row.policy.get("lease_s", 60.0)
        phase = AssignmentPhase.TRAINING.value
        until = timezone.now() + timedelta(seconds=lease_s)
        Assignment.objects.filter(pk=assignment.pk, phase=_EXPIRED).update(
            phase=phase, reason="", lease_until=until, ended_at=None
        )
        text = f"{assignment.device.name}, round {row.number}: reconnected, resumes its work"
        job_event(row.job, text, device=assignment.device)
    assignment.phase, assignment.reason = phase, ""


def expire_assignments(device: Device, reason: str, retryable: bool = True) -> int:
    """Expire all assignments that a device works on, and its offers unless ``retryable``."""
    phases = LEASED if retryable else ACTIVE
    active = Assignment.objects.filter(device=device, phase__in=[p.value for p in phases])
    with transaction.atomic():
        jobs = sorted(set(active.values_list("round__job_id", flat=True)))
        for job_id in jobs:
            lock_job(job_id)
        expired = list(active.select_related("round__job"))
        count = active.update(
            phase=_EXPIRED,
            reason=reason,
            retryable=retryable,
            ended_at=timezone.now(),
        )
        for assignment in expired:
            text = f"{device.name}, round {assignment.round.number}: {reason}"
            job_event(assignment.round.job, text, EventLevel.WARNING, device)
        for job_id in jobs:
            request_advance(job_id)
    return count


def add_traffic(assignment_id: UUID, up: int = 0, down: int = 0) -> None:
    """Add artefact bytes that the server received from, or sent to, the device."""
    Assignment.objects.filter(pk=assignment_id).update(
        bytes_up=F("bytes_up") + up, bytes_down=F("bytes_down") + down
    )
