"""What a person can do with jobs; pages, REST API and admin all call these."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from fedcore.errors import EdgewiseError, Fault, SpecError
from fedcore.rounds.job_lifecycle import PERSON_MOVES, JobPhase, move_refusal
from fedcore.spec.job import JobSpec
from fedcore.spec.rules.distill import launch_faults
from webapp.accounts.models import User
from webapp.devices.models import Device
from webapp.jobs.lifecycle import clusters, device_overrides
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
    """The job is in no state for this; the text says what it would need."""


def create_job(spec: JobSpec, user: User | None, launch: bool = True, seated: bool = False) -> Job:
    """Store a job, and launch it unless it is to stay a draft.

    ``seated``: what differs on its devices is known already, whomever the options name.
    Raises SpecError where the specification names devices or machines that this site does not have,
    or whose role is another one, and for a method that only a simulation runs.
    """
    check_devices(spec, seated)
    phase = JobPhase.QUEUED if launch else JobPhase.DRAFT
    with transaction.atomic():
        job = Job.objects.create(
            name=spec.name,
            spec=spec.to_dict(),
            phase=phase.value,
            created_by=user,
            queued_at=timezone.now() if launch else None,
        )
        job_event(job, f"{'launched' if launch else 'saved'} by {_who(user)}")
        request_advance(job.pk)
    return job


def check_devices(spec: JobSpec, seated: bool = False) -> None:
    """Raise SpecError with all that the enrolled devices are not what a job says of them.

    And where a simulation alone runs such a job, whatever devices there are.
    """
    own = [] if seated else device_overrides.faults(spec)
    if faults := launch_faults(spec) or [*_unknown_devices(spec), *clusters.faults(spec), *own]:
        raise SpecError(faults)


def _unknown_devices(spec: JobSpec) -> list[Fault]:
    named = spec.participation.devices
    known = set(
        Device.objects.filter(name__in=named, revoked_at=None).values_list("name", flat=True)
    )
    missing = [name for name in named if name not in known]
    message = f"no device is called {', '.join(missing)}; see the list of devices"
    return [Fault("participation.devices", message)] if missing else []


def move(job_id: UUID, name: str, user: User | None) -> Job:
    """Make a person's move (launch, pause, resume, retry, cancel). Raises MoveRefused."""
    sources, target = PERSON_MOVES[name]
    changes: dict[str, object] = {"phase": target.value, "reason": ""}
    if target is JobPhase.QUEUED:
        changes |= {"queued_at": timezone.now(), "ended_at": None, "resumed": name != "launch"}
        changes["initialise_requested_at"] = None
    if target is JobPhase.CANCELLED:
        changes |= {"ended_at": timezone.now(), "reason": f"cancelled by {_who(user)}"}
    with transaction.atomic():
        movable = Job.objects.filter(pk=job_id, phase__in=[source.value for source in sources])
        moved = movable.update(**changes)
        job = Job.objects.get(pk=job_id)
        if not moved:
            raise MoveRefused(move_refusal(JobPhase(job.phase), name))
        job_event(job, f"{PAST_TENSE[name]} by {_who(user)}")
        request_advance(job.pk)
    return job


def _who(user: User | None) -> str:
    return user.get_username() if user is not None else "the system"
