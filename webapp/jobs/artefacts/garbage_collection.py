"""Removes artefacts that nobody needs any more, in two steps that never meet somebody's work.

First an artefact is marked; only what is still not needed after the grace period loses its bytes.
Marks and bytes go under the row's lock, and whoever stores the same bytes again takes the mark off
first (``claim``): then either the bytes are still there, or it writes them anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

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

REMOVED_AT_ONCE = 500  # in one pass; the next one goes on
# References that the decision knows of.
JUDGED = (
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
    """What one pass did."""

    marked: int = 0
    removed: int = 0
    freed_bytes: int = 0


def policy() -> RetentionPolicy:
    return RetentionPolicy(settings.KEEP_MODELS, settings.KEEP_UPDATES_H * 3600.0)


def collect(now: datetime | None = None) -> Collected:
    """One pass: mark, take marks off, remove what has been marked for the grace period."""
    now = now or timezone.now()
    before = now - timedelta(hours=settings.COLLECT_GRACE_H)
    kept = needed(now)
    marked = _mark(kept, now, before)
    due = Artefact.objects.filter(removed_at=None, marked_at__lte=before).order_by("marked_at")
    removed = [
        artefact.size_bytes
        for artefact in due[:REMOVED_AT_ONCE]
        if artefact.pk not in kept and _remove(artefact.pk, before, now)
    ]
    _forget_untold(before)
    return Collected(marked, len(removed), sum(removed))


def needed(now: datetime) -> dict[str, str]:
    """SHA-256 of every artefact that some job needs -> why."""
    found: dict[str, str] = {}
    for job in Job.objects.order_by("created_at"):
        found |= retention.required_artefacts(facts(job, now), policy())
    for field in _references():
        if not _judged(field):
            why = f"a {field.model._meta.verbose_name} names it"
            named = field.model._default_manager.values_list(field.attname, flat=True)
            found |= {str(sha256): why for sha256 in named if sha256}
    return found


def _judged(field: models.ForeignKey) -> bool:  # type: ignore[type-arg]
    """Whether ``facts`` tells of it; what any other row names is simply kept."""
    return field.model in (Job, Round, Assignment) and field.name in JUDGED


def facts(job: Job, now: datetime) -> JobFacts:
    """What the decision is made from."""
    updates: dict[int, list[str]] = {}
    parts = Assignment.objects.filter(round__job=job, update_artefact__isnull=False)
    for row, sha256 in parts.values_list("round_id", "update_artefact_id"):
        updates.setdefault(row, []).append(str(sha256))
    unfolded = Assignment.objects.filter(round=OuterRef("pk"), phase__in=UNFOLDED)
    rows = job.rounds.order_by("number", "attempt").annotate(
        unfolded=Exists(unfolded.filter(Q(task=Task.TRAIN.value) | Q(phase__in=AT_WORK)))
    )
    return JobFacts(
        JobPhase(job.phase),
        job.global_artefact_id or "",
        job.merged_artefact_id or "",
        tuple(_round(row, bool(row.unfolded), updates.get(row.pk, ()), now) for row in rows),
    )


def artefacts_of(job: Job) -> set[str]:
    """Every artefact that a job's rows name."""
    known = facts(job, timezone.now())
    found = {known.model, known.merged}
    for row in known.rounds:
        found |= {row.base, row.model, row.state, row.step, *row.updates}
    return found - {""}


def _round(row: Round, unfolded: bool, updates: Iterable[str], now: datetime) -> RoundFacts:
    return RoundFacts(
        number=row.number,
        open=unfolded or RoundPhase(row.phase) not in ENDED,
        base=row.base_artefact_id or "",
        model=row.global_artefact_id or "",
        state=row.state_artefact_id or "",
        step=row.step_artefact_id or "",
        score=row.evaluation.get("rougeL"),
        pinned=row.pinned_at is not None,
        ended_s=(now - row.ended_at).total_seconds() if row.ended_at else 0.0,
        updates=tuple(updates),
    )


def _mark(kept: dict[str, str], now: datetime, before: datetime) -> int:
    """Mark what nobody needs; what is younger than the grace period may be on its way to a row."""
    here = Artefact.objects.filter(removed_at=None)
    marked = here.filter(marked_at__isnull=False).values_list("pk", flat=True)
    again = [sha256 for sha256 in marked if sha256 in kept]
    for part in _parts(again):
        Artefact.objects.filter(pk__in=part).update(marked_at=None)
    old = here.filter(marked_at=None, created_at__lte=before).values_list("pk", flat=True)
    idle = [sha256 for sha256 in old if sha256 not in kept]
    for part in _parts(idle):
        Artefact.objects.filter(pk__in=part, marked_at=None).update(marked_at=now)
    return len(idle)


def _parts(items: list[str], size: int = 500) -> Iterator[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _remove(sha256: str, before: datetime, now: datetime) -> bool:
    """Remove the bytes, unless somebody claimed them meanwhile."""
    with transaction.atomic():
        # An update that changes nothing locks the row, on every database.
        marked = Artefact.objects.filter(pk=sha256, removed_at=None, marked_at__lte=before)
        if not marked.update(removed_at=now) or is_needed_now(sha256, now):
            transaction.set_rollback(True)
            return False
        storage().delete(Artefact.path_of(sha256))
    log.info("artefact %s is removed, nobody needs it", sha256)
    return True


def is_needed_now(sha256: str, now: datetime) -> bool:
    """Whether a job or another row needs it by what the rows say at this moment."""
    others = (field for field in _references() if not _judged(field))
    if any(item.model._default_manager.filter(**{item.name: sha256}).exists() for item in others):
        return True
    jobs = Job.objects.filter(
        Q(global_artefact=sha256) | Q(merged_artefact=sha256) | Q(pk__in=_jobs_naming(sha256))
    )
    return any(sha256 in retention.required_artefacts(facts(job, now), policy()) for job in jobs)


def _jobs_naming(sha256: str) -> set[UUID]:
    rounds = Round.objects.filter(
        Q(base_artefact=sha256)
        | Q(global_artefact=sha256)
        | Q(state_artefact=sha256)
        | Q(step_artefact=sha256)
        | Q(assignments__update_artefact=sha256)
    )
    return set(rounds.values_list("job_id", flat=True))


def _forget_untold(before: datetime) -> None:
    """Drop the rows of removed artefacts that no other row tells of."""
    gone = Artefact.objects.filter(removed_at__lte=before, marked_at__isnull=False)
    for field in _references():
        told = field.model._default_manager.filter(**{f"{field.name}__isnull": False})
        gone = gone.exclude(pk__in=told.values(field.attname))
    gone._raw_delete(gone.db)  # in one statement: who claims a row meanwhile keeps it


def _references() -> list[models.ForeignKey]:  # type: ignore[type-arg]
    """Every foreign key to an artefact, also those that this module does not know."""
    return [
        field
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.ForeignKey) and field.related_model is Artefact
    ]
