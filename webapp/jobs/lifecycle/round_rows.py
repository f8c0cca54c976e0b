"""Rows of a round as the values that ``fedcore.rounds`` decides with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.db.models import Q

from fedcore.rounds.types import (
    ACTIVE,
    AssignmentPhase,
    AssignmentState,
    RoundPhase,
    RoundPolicy,
    RoundState,
    Task,
)
from fedcore.topology import Cluster
from webapp.jobs.models import Artefact, Assignment, Job, Participant, Round


def device_names(job: Job) -> dict[int, str]:
    """The job's device of every slot."""
    rows = Participant.objects.filter(job=job).values_list("slot", "device__name")
    return dict(rows)


def last_seen(job: Job) -> dict[str, float]:
    """When each device of the job was last heard of, in epoch seconds; absent: never."""
    rows = Participant.objects.filter(job=job, device__last_seen_at__isnull=False)
    pairs = rows.values_list("device__name", "device__last_seen_at")
    return {name: at.timestamp() for name, at in pairs if at is not None}


def to_round(row: Round, names: Mapping[int, str] | None = None) -> RoundState:
    """The round that ``fedcore.rounds.synchronous.step`` and ``waiting_for`` understand.

    ``names`` are the devices of the slots, read here where the caller has not read them already.
    """
    named = device_names(row.job) if names is None else names
    return RoundState(
        number=row.number,
        members=tuple(named[slot] for slot in row.members),
        evaluators=tuple(named[slot] for slot in row.evaluators),
        policy=RoundPolicy.from_dict(row.policy),
        phase=RoundPhase(row.phase),
        deadline_at=row.deadline_at.timestamp() if row.deadline_at else None,
        assignments=_assignments(row.assignments.all(), named),
        reason=row.reason,
        clusters=tuple(
            Cluster(named[head], tuple(named[slot] for slot in below))
            for head, below in row.clusters
        ),
    )


def _assignments(
    rows: Iterable[Assignment], names: Mapping[int, str]
) -> tuple[AssignmentState, ...]:
    return tuple(
        AssignmentState(
            device=names[row.slot],
            task=Task(row.task),
            attempt=row.attempt,
            phase=AssignmentPhase(row.phase),
            lease_until=row.lease_until.timestamp(),
            retryable=row.retryable,
            reason=row.reason,
            buffered_in=row.buffered_in,
        )
        for row in rows
    )


def is_buffered(row: Round) -> bool:
    """Whether a round is a version of an asynchronous job; round 0 is like any other."""
    return bool(row.policy.get("buffering"))


def open_rounds(row: Round) -> list[Round]:
    """The rounds that ``step_buffered`` decides on: those with something open, ``row`` last.

    Something is open where a device holds work or an update waits; and the newest model that is to
    be evaluated is always among them.
    """
    mine = Round.objects.filter(job_id=row.job_id, number__gte=1)
    holding = Assignment.objects.filter(round__in=mine, phase__in=OPEN).values("round")
    measured = mine.filter(phase=RoundPhase.CLOSED.value).exclude(evaluators=[])
    newest = measured.order_by("-number", "-attempt").values_list("pk", flat=True).first()
    found = mine.filter(Q(pk__in=holding) | Q(pk=newest)).exclude(pk=row.pk)
    return [*found.order_by("number", "attempt").prefetch_related("assignments"), row]


OPEN = [phase.value for phase in (*ACTIVE, AssignmentPhase.REPORTED)]


def state_before(row: Round) -> Artefact | None:
    """The strategy's state after the newest earlier round that aggregated."""
    earlier = row.job.rounds.filter(number__lt=row.number, state_artefact__isnull=False)
    last = earlier.select_related("state_artefact").order_by("number", "attempt").last()
    return last.state_artefact if last else None
