"""Mark-and-sweep removal of artefacts that no job needs.

An unneeded artefact is marked first and removed only if it is still unneeded after the grace
period. Both happen under the row's lock. Storing the same bytes again clears the mark first
(``store.claim``), so they are either still there or written anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.apps import apps
from django.conf import settings
from django.db import models, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from fedcore.rounds import retention
from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.retention import JobFacts, RetentionPolicy, RoundFacts
from fedcore.rounds.types import ACTIVE, ENDED, AssignmentPhase, RoundPhase, Task
from webapp.jobs.artefacts.store import storage
from webapp.jobs.models import Artefact, Assignment, Job, Round

log = logging.getLogger(__name__)

REMOVED_AT_ONCE = 500  # in one pass; the next one continues
# Foreign keys that ``facts`` covers.
COVERED = (
    "global_artefact",
    "merged_artefact",
    "base_artefact",
    "state_artefact",
    "step_artefact",
    "update_artefact",
)
AT_WORK = tuple(phase.value for phase in ACTIVE)
UNFOLDED = (*AT_WORK, AssignmentPhase.REPORTED.value)


@dataclass(frozen=True)
class Collected:
    """Result of one pass."""

    marked: int = 0
    removed: int = 0
    freed_bytes: int = 0


def policy() -> RetentionPolicy:
    return RetentionPolicy(settings.KEEP_MODELS, settings.KEEP_UPDATES_H * 3600.0)


def collect(now: datetime | None = None) -> Collected:
    """One pass: mark unneeded artefacts, unmark needed ones, remove after the grace period."""
    now = now or timezone.now()
    before = now - timedelta(hours=settings.COLLECT_GRACE_H)
    reasons = needed(now)
    marked = _mark(reasons, now, before)
    due = Artefact.objects.filter(removed_at=None, marked_at__lte=before).order_by("marked_at")
    removed = []
    for artefact in due[:REMOVED_AT_ONCE]:
        if artefact.pk in reasons:
            continue
        with transaction.atomic():
            # The update locks the row on every database. It may have been claimed meanwhile.
            row = Artefact.objects.filter(pk=artefact.pk, removed_at=None, marked_at__lte=before)
            if not row.update(removed_at=now) or is_needed_now(artefact.pk, now):
                transaction.set_rollback(True)
                continue
            storage().delete(Artefact.path_of(artefact.pk))
        log.info("artefact %s is not needed and was removed", artefact.pk)
        removed.append(artefact.size_bytes)
    # Delete rows of removed artefacts that no other row refers to.
    unreferenced = Artefact.objects.filter(removed_at__lte=before, marked_at__isnull=False)
    for field in _references():
        referring = field.model._default_manager.filter(**{f"{field.name}__isnull": False})
        unreferenced = unreferenced.exclude(pk__in=referring.values(field.attname))
    # One statement, so that a concurrent claim keeps its row.
    unreferenced._raw_delete(unreferenced.db)
    return Collected(marked, len(removed), sum(removed))


def needed(now: datetime) -> dict[str, str]:
    """SHA-256 of every needed artefact -> reason."""
    reasons: dict[str, str] = {}
    for job in Job.objects.order_by("created_at"):
        reasons |= retention.required_artefacts(facts(job, now), policy())
    for field in _other_references():
        reason = f"a {field.model._meta.verbose_name} refers to it"
        keys = field.model._default_manager.values_list(field.attname, flat=True)
        reasons |= {str(sha256): reason for sha256 in keys if sha256}
    return reasons


def facts(job: Job, now: datetime) -> JobFacts:
    """The input of the retention decision (``fedcore.rounds.retention``)."""
    updates: dict[int, list[str]] = {}
    assignments = Assignment.objects.filter(round__job=job, update_artefact__isnull=False)
    for row, sha256 in assignments.values_list("round_id", "update_artefact_id"):
        updates.setdefault(row, []).append(str(sha256))
    unfolded = Assignment.objects.filter(round=OuterRef("pk"), phase__in=UNFOLDED)
    rows = job.rounds.order_by("number", "attempt").annotate(
        unfolded=Exists(unfolded.filter(Q(task=Task.TRAIN.value) | Q(phase__in=AT_WORK)))
    )
    return JobFacts(
        JobPhase(job.phase),
        job.global_artefact_id or "",
        job.merged_artefact_id or "",
        tuple(
            RoundFacts(
                number=row.number,
                open=bool(row.unfolded) or RoundPhase(row.phase) not in ENDED,
                base=row.base_artefact_id or "",
                model=row.global_artefact_id or "",
                state=row.state_artefact_id or "",
                step=row.step_artefact_id or "",
                score=row.evaluation.get("rougeL"),
                pinned=row.pinned_at is not None,
                ended_s=(now - row.ended_at).total_seconds() if row.ended_at else 0.0,
                updates=tuple(updates.get(row.pk, ())),
            )
            for row in rows
        ),
    )


def artefacts_of(job: Job) -> set[str]:
    """SHA-256 of every artefact that a job refers to."""
    known = facts(job, timezone.now())
    keys = {known.model, known.merged}
    for row in known.rounds:
        keys |= {row.base, row.model, row.state, row.step, *row.updates}
    return keys - {""}


def _mark(reasons: dict[str, str], now: datetime, before: datetime) -> int:
    """Mark unneeded artefacts older than the grace period; a younger one may get its row yet."""
    stored = Artefact.objects.filter(removed_at=None)
    marked = stored.filter(marked_at__isnull=False).values_list("pk", flat=True)
    for batch in _batches([sha256 for sha256 in marked if sha256 in reasons]):
        Artefact.objects.filter(pk__in=batch).update(marked_at=None)
    old = stored.filter(marked_at=None, created_at__lte=before).values_list("pk", flat=True)
    unneeded = [sha256 for sha256 in old if sha256 not in reasons]
    for batch in _batches(unneeded):
        Artefact.objects.filter(pk__in=batch, marked_at=None).update(marked_at=now)
    return len(unneeded)


def _batches(items: list[str], size: int = 500) -> Iterator[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def is_needed_now(sha256: str, now: datetime) -> bool:
    """Whether any row needs the artefact at this moment."""
    for field in _other_references():
        if field.model._default_manager.filter(**{field.name: sha256}).exists():
            return True
    rounds = Round.objects.filter(
        Q(base_artefact=sha256)
        | Q(global_artefact=sha256)
        | Q(state_artefact=sha256)
        | Q(step_artefact=sha256)
        | Q(assignments__update_artefact=sha256)
    )
    jobs = Job.objects.filter(
        Q(global_artefact=sha256)
        | Q(merged_artefact=sha256)
        | Q(pk__in=set(rounds.values_list("job_id", flat=True)))
    )
    return any(sha256 in retention.required_artefacts(facts(job, now), policy()) for job in jobs)


def _references() -> list[models.ForeignKey]:  # type: ignore[type-arg]
    """Every foreign key to an artefact, in any app."""
    return [
        field
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.ForeignKey) and field.related_model is Artefact
    ]


def _other_references() -> list[models.ForeignKey]:  # type: ignore[type-arg]
    """Foreign keys that ``facts`` does not cover; an artefact they refer to is needed."""
    return [
        field
        for field in _references()
        if field.model not in (Job, Round, Assignment) or field.name not in COVERED
    ]
