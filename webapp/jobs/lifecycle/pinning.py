"""Retention decisions of people: pin a round's model, delete a finished job."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from fedcore.rounds.job_lifecycle import JobPhase
from webapp.accounts.models import User
from webapp.jobs.artefacts.garbage_collection import artefacts_of
from webapp.jobs.artefacts.store import claim, removed_text
from webapp.jobs.lifecycle.event_log import fleet_event, job_event
from webapp.jobs.lifecycle.services import MoveRefused
from webapp.jobs.lifecycle.transitions import lock_job
from webapp.jobs.models import Artefact, ArtefactKind, Job, Round

DELETABLE = tuple(
    phase.value
    for phase in (JobPhase.DRAFT, JobPhase.COMPLETED, JobPhase.FAILED, JobPhase.CANCELLED)
)


def pin(round_id: int, user: User) -> Round:
    """Keep the model of a round as long as the job. Raises MoveRefused where it was removed."""
    row = Round.objects.select_related("job", "global_artefact").get(pk=round_id)
    artefact = row.global_artefact
    if artefact is None or artefact.kind != ArtefactKind.GLOBAL:
        raise MoveRefused(f"round {row.number} has no model to keep")
    if not claim(artefact.pk):
        artefact.refresh_from_db()
        raise MoveRefused(removed_text(artefact))
    return _set_pinned(row, user, pinned=True)


def unpin(round_id: int, user: User) -> Round:
    """Leave the model of a round to normal retention again."""
    return _set_pinned(Round.objects.select_related("job").get(pk=round_id), user, pinned=False)


def _set_pinned(row: Round, user: User, pinned: bool) -> Round:
    """Store and log the change; repeating it does nothing."""
    changed = Round.objects.filter(pk=row.pk, pinned_at__isnull=pinned)
    with transaction.atomic():
        lock_job(row.job_id)
        if changed.update(pinned_at=timezone.now() if pinned else None):
            verb = "pinned" if pinned else "unpinned"
            job_event(row.job, f"model of round {row.number} {verb} by {user.get_username()}")
    row.refresh_from_db()
    return row


def delete_job(job_id: UUID, user: User) -> None:
    """Delete a finished job with its rounds, events and local-only baselines.

    Its artefacts are removed after the grace period. Raises MoveRefused where it is not over.
    """
    with transaction.atomic():
        lock_job(job_id)
        job = Job.objects.get(pk=job_id)
        if job.phase not in DELETABLE:
            raise MoveRefused(f"a {job.phase} job cannot be deleted; cancel it first")
        if job.rounds.exclude(phase__in=("closed", "failed")).exists():
            raise MoveRefused("its devices are just stopping; try again in a moment")
        baselines = list(job.alone_jobs.all())
        if any(child.phase not in DELETABLE for child in baselines):
            raise MoveRefused("its local-only baselines still run; cancel them first")
        freed = artefacts_of(job).union(*(artefacts_of(child) for child in baselines))
        name = job.name
        job.delete()
        Artefact.objects.filter(pk__in=freed, marked_at=None).update(marked_at=timezone.now())
    fleet_event(f"job {name!r} deleted by {user.get_username()}")
