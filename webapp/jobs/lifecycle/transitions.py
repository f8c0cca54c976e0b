"""Guarded updates: a phase moves only from the one it was seen in; the count tells who won."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from uuid import UUID

from django.core.cache import cache
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from fedcore.rounds.queries import may_resume, move_refusal
from fedcore.rounds.types import ACTIVE, LEASED, SILENT, AssignmentPhase, AssignmentState
from webapp.common.task_queue import ADVANCE, send
from webapp.common.wake import wake_job
from webapp.devices.models import Device
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.round_rows import to_round
from webapp.jobs.models import Assignment, EventLevel, Job, Round

# A message that was lost is made good by the reconcile pass, which comes about as soon.
ASKED_FOR_S = 2


class AssignmentRefused(Exception):
    """The device may not do this to this assignment; the text says why."""


def request_advance(job_id: UUID) -> None:
    """Have the coordinator look at a job and live pages look at it too, after the commit."""
    transaction.on_commit(partial(_ask, job_id))
    wake_job(job_id)


def _ask(job_id: UUID) -> None:
    """Ask once: a look that nobody has begun yet will see this change as well.

    Else a thousand devices that report at once would have the round decided on a thousand times.
    """
    if cache.add(_asked_key(job_id), 1, ASKED_FOR_S):
        send(ADVANCE, str(job_id))


def start_advance(job_id: UUID) -> None:
    """The coordinator reads the job's rows from now on; what comes later is to be asked for."""
    cache.delete(_asked_key(job_id))


def _asked_key(job_id: UUID) -> str:
    return f"asked-to-look:{job_id}"


def lock_job(job_id: UUID) -> None:
    """Hold a job's row until the transaction ends.

    Whoever changes assignments and the job's log in one transaction takes this first, as the
    coordinator does; taken in the other order, two of them would wait for each other for ever.
    """
    list(Job.objects.select_for_update().filter(pk=job_id).values_list("pk"))


def move_assignment(assignment: Assignment, wanted: AssignmentPhase, **changes: object) -> None:
    """Move an assignment as its device asks. Raises AssignmentRefused with the reason.

    A measurement of the same device may move it at the same moment: then it is looked at again.
    """
    for _ in range(len(AssignmentPhase)):  # phases only go forward
        refusal = move_refusal(AssignmentPhase(assignment.phase), wanted)
        if refusal:
            raise AssignmentRefused(refusal)
        seen = Assignment.objects.filter(pk=assignment.pk, phase=assignment.phase)
        if seen.update(phase=wanted.value, **changes):
            assignment.phase = wanted.value
            return
        assignment.refresh_from_db(fields=["phase"])
    raise AssignmentRefused("this assignment changes all the time; ask again")


def renew_lease(assignment_id: UUID, device: Device, lease_s: float) -> bool:
    """Whether the device still holds the assignment; if so it does for ``lease_s`` more."""
    until = timezone.now() + timedelta(seconds=lease_s)
    held = Assignment.objects.filter(
        pk=assignment_id, device=device, phase__in=[phase.value for phase in LEASED]
    )
    return bool(held.update(lease_until=until))


def take_back(assignment: Assignment) -> None:
    """Give a device back what was taken from it for its silence alone, if that is still of use."""
    if not (assignment.phase == _EXPIRED and assignment.reason.startswith(SILENT)):
        return
    with transaction.atomic():
        lock_job(assignment.round.job_id)
        row = Round.objects.select_related("job").get(pk=assignment.round_id)
        now = to_round(row)
        key = (assignment.device.name, assignment.task, assignment.attempt)
        mine = (item for item in now.assignments if _key(item) == key)
        if not any(may_resume(now, item) for item in mine):
            return
        lease_s = row.policy.get("lease_s", 60.0)
        phase = AssignmentPhase.TRAINING.value
        until = timezone.now() + timedelta(seconds=lease_s)
        held = Assignment.objects.filter(pk=assignment.pk, phase=_EXPIRED)
        held.update(phase=phase, reason="", lease_until=until, ended_at=None)
        text = f"{assignment.device.name}, round {row.number}: is back and goes on"
        job_event(row.job, text, device=assignment.device)
    assignment.phase, assignment.reason = phase, ""


_EXPIRED = AssignmentPhase.EXPIRED.value


def _key(item: AssignmentState) -> tuple[str, str, int]:
    return (item.device, item.task.value, item.attempt)


def expire_assignments(device: Device, reason: str, retryable: bool = True) -> int:
    """Give up everything a device holds, or was offered where it will not come back."""
    phases = LEASED if retryable else ACTIVE
    held = Assignment.objects.filter(device=device, phase__in=[p.value for p in phases])
    with transaction.atomic():
        jobs = sorted(set(held.values_list("round__job_id", flat=True)))
        for job_id in jobs:
            lock_job(job_id)
        lost = list(held.select_related("round__job"))
        count = held.update(
            phase=AssignmentPhase.EXPIRED.value,
            reason=reason,
            retryable=retryable,
            ended_at=timezone.now(),
        )
        for assignment in lost:
            text = f"{device.name}, round {assignment.round.number}: {reason}"
            job_event(assignment.round.job, text, EventLevel.WARNING, device)
        for job_id in jobs:
            request_advance(job_id)
    return count


def add_traffic(assignment_id: UUID, up: int = 0, down: int = 0) -> None:
    """Count artefact bytes of an assignment as the server saw them."""
    Assignment.objects.filter(pk=assignment_id).update(
        bytes_up=F("bytes_up") + up, bytes_down=F("bytes_down") + down
    )
