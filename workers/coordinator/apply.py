"""Stores the decision of a round step: guarded updates of rows, messages after the commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, cast

from django.db import transaction

from fedcore.rounds.types import (
    ACTIVE,
    ENDED,
    AssignmentPhase,
    AssignmentState,
    Effect,
    Ended,
    EvaluationArrived,
    Revoke,
    RoundPhase,
    RoundState,
    Task,
)
from webapp.devices import device_messages
from webapp.jobs.analysis.device_scores import PERSONAL
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.models import Assignment, EventLevel, Job, Participant, Round
from webapp.jobs.round_records import EvaluationRecord

MEANS = ("loss", "rouge1", "rouge2", "rougeL", *PERSONAL)


class StalePhase(Exception):
    """A row is no longer in the phase that the decision was made on."""


def able_names(job: Job) -> frozenset[str]:
    """The job's devices that are connected and can work."""
    rows = Participant.objects.filter(job=job).select_related("device")
    return frozenset(row.device.name for row in rows if row.device.can_work)


def give_up_revoked(row: Round) -> None:
    """Expire the active assignments of revoked devices."""
    Assignment.objects.filter(
        round__job_id=row.job_id,
        device__revoked_at__isnull=False,
        phase__in=[phase.value for phase in ACTIVE],
    ).update(
        phase=AssignmentPhase.EXPIRED.value,
        reason="the device was revoked",
        retryable=False,
        ended_at=datetime.now(timezone.utc),
    )


def save(
    job: Job,
    row: Round,
    before: RoundState,
    after: RoundState,
    effects: Sequence[Effect],
    names: Mapping[int, str],
) -> None:
    """Store the difference between two states of a round, and carry out the effects."""
    slots = {name: slot for slot, name in names.items()}
    offered = _save_assignments(row, before, after, slots)
    if (after.phase, after.reason, after.deadline_at) != (
        before.phase,
        before.reason,
        before.deadline_at,
    ):
        _save_round(row, before, after)
    cancels = []
    for effect in effects:
        if isinstance(effect, Revoke):
            cancels.append(_revoke_assignment(job, row, effect, slots))
        elif isinstance(effect, EvaluationArrived):
            Round.objects.filter(pk=row.pk).update(evaluation=evaluation_means(row))
        elif isinstance(effect, Ended):
            _end_round(job, row, effect)
    transaction.on_commit(partial(_send_messages, offered, cancels))


def _send_messages(offered: Sequence[Assignment], cancels: Sequence[Callable[[], bool]]) -> None:
    """Send offers and cancellations, until the broker cannot be reached.

    A later reconcile pass sends lost offers; answers to measurements repeat cancellations.
    """
    if send_offers(offered):
        all(cancel() for cancel in cancels)


def send_offers(offered: Iterable[Assignment]) -> bool:
    """Offer work to devices. Returns False where the broker could not be reached."""
    offers = [(assignment.device_id, assignment.pk) for assignment in offered]
    if not offers:
        return True
    reached = device_messages.offer([(device, str(pk)) for device, pk in offers])
    if reached:
        sent = Assignment.objects.filter(pk__in=[pk for _, pk in offers])
        sent.update(sent_at=datetime.now(timezone.utc))
    return reached


def _save_assignments(
    row: Round, before: RoundState, after: RoundState, slots: Mapping[str, int]
) -> list[Assignment]:
    """Store new and changed assignments, grouped into few queries; returns new offers."""
    previous = {(a.device, a.task, a.attempt): a for a in before.assignments}
    new: list[AssignmentState] = []
    changes: dict[_Change, list[int]] = {}
    for item in after.assignments:
        old = previous.get((item.device, item.task, item.attempt))
        if old is None:
            new.append(item)
        elif old != item:
            change = _Change(old.phase, replace(item, device="", lease_until=0.0))
            changes.setdefault(change, []).append(slots[item.device])
    for change, changed_slots in changes.items():
        _update_assignments(row, change, changed_slots)
    return _create_assignments(row, new, slots) if new else []


@dataclass(frozen=True)
class _Change:
    """A change that several devices' assignments share; ``after`` names no device."""

    before: AssignmentPhase
    after: AssignmentState


def _update_assignments(row: Round, change: _Change, slots: list[int]) -> None:
    after = change.after
    values: dict[str, Any] = {
        "phase": after.phase.value,
        "reason": after.reason,
        "retryable": after.retryable,
        "buffered_in": after.buffered_in,
    }
    if change.before is not AssignmentPhase.REPORTED:  # ended when it was reported
        values["ended_at"] = datetime.now(timezone.utc)
    unchanged = Assignment.objects.filter(
        round=row,
        slot__in=slots,
        task=after.task.value,
        attempt=after.attempt,
        phase=change.before.value,
    )
    if unchanged.update(**values) != len(slots):
        raise StalePhase


def _create_assignments(
    row: Round, items: Sequence[AssignmentState], slots: Mapping[str, int]
) -> list[Assignment]:
    """Store new assignments; returns the offers among them."""
    devices = dict(Participant.objects.filter(job_id=row.job_id).values_list("slot", "device_id"))
    rows = Assignment.objects.bulk_create(
        Assignment(
            round=row,
            device_id=devices[slots[item.device]],
            slot=slots[item.device],
            task=item.task.value,
            attempt=item.attempt,
            phase=item.phase.value,
            reason=item.reason,
            retryable=item.retryable,
            lease_until=datetime.fromtimestamp(item.lease_until, timezone.utc),
        )
        for item in items
    )
    return [item for item in rows if item.phase == AssignmentPhase.OFFERED.value]


def _save_round(row: Round, before: RoundState, after: RoundState) -> None:
    now = datetime.now(timezone.utc)
    deadline_at = None
    if after.deadline_at is not None:
        deadline_at = datetime.fromtimestamp(after.deadline_at, timezone.utc)
    changes: dict[str, Any] = {
        "phase": after.phase.value,
        "reason": after.reason,
        "deadline_at": deadline_at,
    }
    if after.phase is RoundPhase.AGGREGATING:
        changes |= {"collected_at": now, "aggregation_requested_at": None}
    if after.phase in ENDED:
        changes["ended_at"] = now
    if not Round.objects.filter(pk=row.pk, phase=before.phase.value).update(**changes):
        raise StalePhase
    for name, value in changes.items():
        setattr(row, name, value)


def _revoke_assignment(
    job: Job, row: Round, effect: Revoke, slots: Mapping[str, int]
) -> Callable[[], bool]:
    assignment = Assignment.objects.select_related("device").get(
        round=row, slot=slots[effect.device], task=effect.task.value, attempt=effect.attempt
    )
    text = f"{effect.device}, round {row.number}: {effect.reason}"
    job_event(job, text, EventLevel.WARNING, assignment.device)
    if effect.silent:  # the device may still be working, unaware of an outage
        return lambda: True
    return partial(device_messages.cancel, assignment.device_id, str(assignment.pk), effect.reason)


def _end_round(job: Job, row: Round, effect: Ended) -> None:
    means = evaluation_means(row)
    Round.objects.filter(pk=row.pk).update(evaluation=means)
    details = f"ROUGE-L {means['rougeL']:.1f}, loss {means['loss']:.3f}" if means else ""
    if effect.failed:
        outcome = f"round {row.number} failed"
    else:
        outcome = f"round {row.number} closed" if row.number else "baseline measured"
    text = ": ".join(part for part in (outcome, details, effect.reason) if part)
    job_event(job, text, EventLevel.ERROR if effect.failed else EventLevel.INFO)


def evaluation_means(row: Round) -> EvaluationRecord:
    """Means over the devices that evaluated, weighted by their validation examples."""
    done = Assignment.objects.filter(
        round=row, task=Task.EVALUATE.value, phase=AssignmentPhase.FOLDED.value
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
    record = {**means, "examples": float(total), "devices": float(len(reports))}
    return cast(EvaluationRecord, record)
