"""What a person decides about keeping: pin a round's model, delete a job that is over."""

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
    """Keep the model of a round for as long as the job. Raises MoveRefused where it is gone."""
    row = Round.objects.select_related("job", "global_artefact").get(pk=round_id)
    artefact = row.global_artefact
    if artefact is None or artefact.kind != ArtefactKind.GLOBAL:
        raise MoveRefused(f"round {row.number} has made no model that could be kept")
    if not claim(artefact.pk):
        artefact.refresh_from_db()
        raise MoveRefused(removed_text(artefact))
    return _note(row, user, pinned=True)


def unpin(round_id: int, user: User) -> Round:
    """Let the model of a round go when its time comes; pinning it again before that is fine."""
    return _note(Round.objects.select_related("job").get(pk=round_id), user, pinned=False)


def _note(row: Round, user: User, pinned: bool) -> Round:
    """Store it and log it, once however often it is asked for."""
    changed = Round.objects.filter(pk=row.pk, pinned_at__isnull=pinned)
    with transaction.atomic():
        lock_job(row.job_id)
        if changed.update(pinned_at=timezone.now() if pinned else None):
            verb = "pinned" if pinned else "unpinned"
            job_event(row.job, f"model of round {row.number} {verb} by {user.get_username()}")
    row.refresh_from_db()
    return row


def delete_job(job_id: UUID, user: User) -> None:
    """Delete a job that is over, with all it tells of; its artefacts go after the grace period.

    So go the trainings alone that were compared with it.

    Raises MoveRefused where it is not over.
    """
    with transaction.atomic():
        lock_job(job_id)
        job = Job.objects.get(pk=job_id)
        if job.phase not in DELETABLE:
            raise MoveRefused(f"a {job.phase} job cannot be deleted; cancel it first")
        if job.rounds.exclude(phase__in=("closed", "failed")).exists():
            raise MoveRefused("its devices are just being told to stop; ask again in a moment")
        alone = list(job.alone_jobs.all())
        if any(child.phase not in DELETABLE for child in alone):
            raise MoveRefused("devices still train alone to compare with it; cancel that first")
        freed = artefacts_of(job).union(*(artefacts_of(child) for child in alone))
        name = job.name
        job.delete()
        Artefact.objects.filter(pk__in=freed, marked_at=None).update(marked_at=timezone.now())
    fleet_event(f"job {name!r} deleted by {user.get_username()}")
