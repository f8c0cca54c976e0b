"""Actions of people on jobs, shared by the pages, the REST API and the admin."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from fedcore.errors import EdgewiseError, Fault, SpecError
from fedcore.rounds.job_lifecycle import PERSON_MOVES, JobPhase, move_refusal
from fedcore.spec.job import JobSpec
from fedcore.spec.rules.method import launch_faults
from webapp.accounts.models import User
from webapp.devices.models import Device
from webapp.jobs.lifecycle.cluster_setup import tree_faults
from webapp.jobs.lifecycle.device_overrides import override_faults
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.transitions import request_advance
from webapp.jobs.models import Job

PAST_TENSE = {
    "launch": "launched",
    "pause": "paused",
    "resume": "resumed",
    "retry": "retried",
    "cancel": "cancelled",
}


class MoveRefused(EdgewiseError):
    """The job's phase does not allow this move; the text says which would."""


def create_job(
    spec: JobSpec, user: User | None, launch: bool = True, overrides_known: bool = False
) -> Job:
    """Store a job, and launch it unless it stays a draft.

    ``overrides_known``: the participant's overrides are set already, so they are not checked.
    Raises SpecError as ``check_devices`` does.
    """
    check_devices(spec, overrides_known)
    phase = JobPhase.QUEUED if launch else JobPhase.DRAFT
    with transaction.atomic():
        job = Job.objects.create(
            name=spec.name,
            spec=spec.to_dict(),
            phase=phase.value,
            created_by=user,
            queued_at=timezone.now() if launch else None,
        )
        job_event(job, f"{'launched' if launch else 'saved'} by {user_name(user)}")
        request_advance(job.pk)
    return job


def check_devices(spec: JobSpec, overrides_known: bool = False) -> None:
    """Raises SpecError with every device or machine that this site does not have in that role.

    It does so too for a method that only the simulation runs.
    """
    if faults := launch_faults(spec):
        raise SpecError(faults)
    names = spec.participation.devices
    enrolled = Device.objects.filter(name__in=names, revoked_at=None)
    known = set(enrolled.values_list("name", flat=True))
    if missing := [name for name in names if name not in known]:
        message = f"no device is called {', '.join(missing)}; see the list of devices"
        faults.append(Fault("participation.devices", message))
    faults += tree_faults(spec)
    if not overrides_known:
        faults += override_faults(spec)
    if faults:
        raise SpecError(faults)


def move(job_id: UUID, name: str, user: User | None) -> Job:
    """Launch, pause, resume, retry or cancel a job. Raises MoveRefused."""
    sources, target = PERSON_MOVES[name]
    changes: dict[str, object] = {"phase": target.value, "reason": ""}
    if target is JobPhase.QUEUED:
        changes |= {"queued_at": timezone.now(), "ended_at": None, "resumed": name != "launch"}
        changes["initialise_requested_at"] = None
    if target is JobPhase.CANCELLED:
        changes |= {"ended_at": timezone.now(), "reason": f"cancelled by {user_name(user)}"}
    with transaction.atomic():
        movable = Job.objects.filter(pk=job_id, phase__in=[source.value for source in sources])
        moved = movable.update(**changes)
        job = Job.objects.get(pk=job_id)
        if not moved:
            raise MoveRefused(move_refusal(JobPhase(job.phase), name))
        job_event(job, f"{PAST_TENSE[name]} by {user_name(user)}")
        request_advance(job.pk)
    return job


def user_name(user: User | None) -> str:
    """For event texts."""
    return user.get_username() if user is not None else "the system"
