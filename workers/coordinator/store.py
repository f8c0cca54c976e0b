"""Storing what a step decided: guarded updates of the rows, messages after the commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any

from django.db import transaction

from fedcore import rounds
from fedcore.rounds import Effect, Ended, Offer, Revoke, RoundPhase, Task
from webapp.devices import broker
from webapp.events import job_event
from webapp.jobs.models import Assignment, Job, Level, Participant, Round

MEANS = ("loss", "rouge1", "rouge2", "rougeL")


class Conflict(Exception):
    """A row was no longer in the phase the decision was made on."""


def online_names(job: Job) -> frozenset[str]:
    rows = Participant.objects.filter(job=job).select_related("device")
    return frozenset(row.device.name for row in rows if row.device.is_online)


def give_up_revoked(row: Round) -> None:
    """Nobody waits for a device that was revoked before this was offered to it."""
    Assignment.objects.filter(
        round=row,
        device__revoked_at__isnull=False,
        phase__in=[phase.value for phase in rounds.ACTIVE],
    ).update(
        phase=rounds.AssignmentPhase.EXPIRED.value,
        reason="the device was revoked",
        retryable=False,
        ended_at=datetime.now(timezone.utc),
    )


def save(
    job: Job,
    row: Round,
    before: rounds.Round,
    after: rounds.Round,
    effects: Sequence[Effect],
    names: Mapping[int, str],
) -> None:
    """Store the difference between two states of a round and carry the effects out."""
    slots = {name: slot for slot, name in names.items()}
    _save_assignments(row, before, after, slots)
    if (after.phase, after.reason, after.deadline_at) != (
        before.phase,
        before.reason,
        before.deadline_at,
    ):
        _save_round(row, before, after)
    messages = []
    for effect in effects:
        if isinstance(effect, Offer):
            messages.append(_offer(row, effect, slots))
        elif isinstance(effect, Revoke):
            messages.append(_revoke(job, row, effect, slots))
        elif isinstance(effect, Ended):
            _ended(job, row, effect)
    transaction.on_commit(partial(_send, messages))


def _send(messages: Sequence[Callable[[], bool]]) -> None:
    """Tell the devices. A broker that is away is not asked once per device.

    A later reconcile pass sends the offers; an answer to measurements says what is over.
    """
    for send in messages:
        if not send():
            return


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)


def _save_assignments(
    row: Round, before: rounds.Round, after: rounds.Round, slots: Mapping[str, int]
) -> None:
    old = {(a.device, a.task, a.attempt): a for a in before.assignments}
    now = datetime.now(timezone.utc)
    for item in after.assignments:
        known = old.get((item.device, item.task, item.attempt))
        if known is None:
            _create(row, item, slots[item.device])
        elif known != item:
            changed = Assignment.objects.filter(
                round=row,
                slot=slots[item.device],
                task=item.task.value,
                attempt=item.attempt,
                phase=known.phase.value,
            ).update(
                phase=item.phase.value,
                reason=item.reason,
                retryable=item.retryable,
                **({} if item.phase is rounds.AssignmentPhase.FOLDED else {"ended_at": now}),
            )
            if not changed:
                raise Conflict


def _create(row: Round, item: rounds.Assignment, slot: int) -> None:
    device_id = Participant.objects.values_list("device_id", flat=True).get(
        job_id=row.job_id, slot=slot
    )
    Assignment.objects.create(
        round=row,
        device_id=device_id,
        slot=slot,
        task=item.task.value,
        attempt=item.attempt,
        phase=item.phase.value,
        lease_until=datetime.fromtimestamp(item.lease_until, timezone.utc),
    )


def _save_round(row: Round, before: rounds.Round, after: rounds.Round) -> None:
    now = datetime.now(timezone.utc)
    changes: dict[str, Any] = {
        "phase": after.phase.value,
        "reason": after.reason,
        "deadline_at": _at(after.deadline_at),
    }
    if after.phase is RoundPhase.AGGREGATING:
        changes["collected_at"] = now
    if after.phase in rounds.ENDED:
        changes["ended_at"] = now
    if not Round.objects.filter(pk=row.pk, phase=before.phase.value).update(**changes):
        raise Conflict
    for name, value in changes.items():
        setattr(row, name, value)


def _offer(row: Round, effect: Offer, slots: Mapping[str, int]) -> Callable[[], bool]:
    assignment = _find(row, slots[effect.device], effect.task, effect.attempt)
    return partial(send_offer, assignment)


def send_offer(assignment: Assignment) -> bool:
    """Tell the device that there is work. False where the broker could not be reached."""
    sent = broker.offer(assignment.device_id, str(assignment.pk))
    if sent:
        now = datetime.now(timezone.utc)
        Assignment.objects.filter(pk=assignment.pk).update(sent_at=now)
    return sent


def _revoke(job: Job, row: Round, effect: Revoke, slots: Mapping[str, int]) -> Callable[[], bool]:
    assignment = _find(row, slots[effect.device], effect.task, effect.attempt)
    text = f"{effect.device}, round {row.number}: {effect.reason}"
    job_event(job, text, Level.WARNING, assignment.device)
    return partial(broker.cancel, assignment.device_id, str(assignment.pk), effect.reason)


def _find(row: Round, slot: int, task: Task, attempt: int) -> Assignment:
    rows = Assignment.objects.select_related("device")
    return rows.get(round=row, slot=slot, task=task.value, attempt=attempt)


def _ended(job: Job, row: Round, effect: Ended) -> None:
    means = evaluation_means(row)
    Round.objects.filter(pk=row.pk).update(evaluation=means)
    score = f", ROUGE-L {means['rougeL']:.1f}, loss {means['loss']:.3f}" if means else ""
    outcome = "failed" if effect.failed else "closed"
    reason = f": {effect.reason}" if effect.reason else ""
    level = Level.ERROR if effect.failed else Level.INFO
    job_event(job, f"round {row.number} {outcome}{score}{reason}", level)


def evaluation_means(row: Round) -> dict[str, float]:
    """Means over the devices that evaluated, weighted by their validation examples."""
    done = Assignment.objects.filter(
        round=row, task=Task.EVALUATE.value, phase=rounds.AssignmentPhase.FOLDED.value
    )
    reports = [item.metrics | {"examples": item.examples} for item in done]
    total = sum(report["examples"] for report in reports)
    if not total:
        return {}
    means = {
        key: sum(report[key] * report["examples"] for report in reports) / total
        for key in MEANS
        if all(key in report for report in reports)
    }
    return {**means, "examples": float(total), "devices": float(len(reports))}
