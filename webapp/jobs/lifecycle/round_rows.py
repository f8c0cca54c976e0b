"""Database rows of a round as the plain values that ``fedcore.rounds`` decides on."""

from __future__ import annotations

from collections.abc import Mapping

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

OPEN = [phase.value for phase in (*ACTIVE, AssignmentPhase.REPORTED)]


def device_names(job: Job) -> dict[int, str]:
    """Device name by slot."""
    rows = Participant.objects.filter(job=job).values_list("slot", "device__name")
    return dict(rows)


def last_seen(job: Job) -> dict[str, float]:
    """Epoch seconds of each device's last message; a device that never sent one is absent."""
    rows = Participant.objects.filter(job=job, device__last_seen_at__isnull=False)
    pairs = rows.values_list("device__name", "device__last_seen_at")
    return {name: at.timestamp() for name, at in pairs if at is not None}


def to_round(row: Round, names: Mapping[int, str] | None = None) -> RoundState:
    """The round as ``fedcore.rounds.synchronous.step`` and ``waiting_for`` take it.

    ``names``: device name by slot; read from the database if absent.
    """
    device = device_names(row.job) if names is None else names
    return RoundState(
        number=row.number,
        members=tuple(device[slot] for slot in row.members),
        evaluators=tuple(device[slot] for slot in row.evaluators),
        policy=RoundPolicy.from_dict(row.policy),
        phase=RoundPhase(row.phase),
        deadline_at=row.deadline_at.timestamp() if row.deadline_at else None,
        assignments=tuple(
            AssignmentState(
                device=device[item.slot],
                task=Task(item.task),
                attempt=item.attempt,
                phase=AssignmentPhase(item.phase),
                lease_until=item.lease_until.timestamp(),
                retryable=item.retryable,
                reason=item.reason,
                buffered_in=item.buffered_in,
            )
            for item in row.assignments.all()
        ),
        reason=row.reason,
        clusters=tuple(
            Cluster(device[head], tuple(device[slot] for slot in children))
            for head, children in row.clusters
        ),
    )


def assignment_key(state: AssignmentState) -> tuple[str, str, int]:
    """Device name, task and attempt: unique within a round."""
    return (state.device, state.task.value, state.attempt)


def is_buffered(row: Round) -> bool:
    """Whether the round is a model version of an asynchronous job. Its round 0 is not."""
    return bool(row.policy.get("buffering"))


def open_rounds(row: Round) -> list[Round]:
    """The rounds that ``step_buffered`` decides on, ``row`` last.

    A round is open while a device works on it or an update of it waits. The newest version that is
    evaluated always counts as open.
    """
    versions = Round.objects.filter(job_id=row.job_id, number__gte=1)
    active = Assignment.objects.filter(round__in=versions, phase__in=OPEN).values("round")
    evaluated = versions.filter(phase=RoundPhase.CLOSED.value).exclude(evaluators=[])
    newest = evaluated.order_by("-number", "-attempt").values_list("pk", flat=True).first()
    rows = versions.filter(Q(pk__in=active) | Q(pk=newest)).exclude(pk=row.pk)
    return [*rows.order_by("number", "attempt").prefetch_related("assignments"), row]


def state_before(row: Round) -> Artefact | None:
    """The strategy's state after the newest earlier round that aggregated."""
    earlier = row.job.rounds.filter(number__lt=row.number, state_artefact__isnull=False)
    last = earlier.select_related("state_artefact").order_by("number", "attempt").last()
    return last.state_artefact if last else None
