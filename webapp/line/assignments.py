"""What devices do to their assignments: accept, progress, report, fail, refuse.

Each function applies the frames of many devices in one transaction with few statements, and gives
the outcome of each: a refusal is an exception of its own. Every frame may come twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone

from fedcore.formats.line_bodies import ReportBody
from fedcore.formats.line_messages import MessageError
from fedcore.rounds.queries import move_refusal
from fedcore.rounds.types import DELIVERED, AssignmentPhase, Task
from webapp.common.metric_definitions import report_faults
from webapp.common.wake import wake_job
from webapp.devices.models import Device
from webapp.jobs.artefacts import update_format
from webapp.jobs.artefacts.store import ArtefactRefused
from webapp.jobs.lifecycle import cluster_folds
from webapp.jobs.lifecycle.event_log import JobEvent, job_events
from webapp.jobs.lifecycle.transitions import (
    AssignmentRefused,
    renew_leases,
    request_advance,
    take_back,
)
from webapp.jobs.models import Artefact, Assignment, EventLevel
from webapp.line.answers import AcceptAnswer, AcceptAnswers, server_state
from webapp.line.calls import Call, LockedAssignments, Outcome, weights_of
from webapp.line.failures import reason_of
from webapp.line.small_updates import store_small_updates

SENDING = (Task.TRAIN.value, Task.FOLD.value)  # they report an update
NEWER_AGENT = "a newer agent of this device has started; call hello again"


def _each(calls: Sequence[Call], change: Callable[[Call], Any]) -> list[Any]:
    """``change`` of each call, or what it raised."""
    outcomes: list[Any] = []
    for call in calls:
        try:
            outcomes.append(change(call))
        except (AssignmentRefused, ArtefactRefused, Http404, MessageError) as refusal:
            outcomes.append(refusal)
    return outcomes


def _move(assignment: Assignment, target: AssignmentPhase) -> None:
    """Note the phase in the locked row; the caller writes it. Raises AssignmentRefused."""
    refusal = move_refusal(AssignmentPhase(assignment.phase), target)
    if refusal:
        raise AssignmentRefused(refusal)
    assignment.phase = target.value


def accept(calls: Sequence[Call]) -> list[AcceptAnswer | Exception]:
    """Start assignments; the answers say what to do. Refused where one is over or begun."""
    with transaction.atomic():
        rows = LockedAssignments(calls)
        now = timezone.now()
        accepted: list[Assignment] = []

        def start(call: Call) -> Assignment:
            assignment, boot_id = rows.of(call), call.origin.boot_id
            if boot_id != call.device.boot_id:
                raise AssignmentRefused(NEWER_AGENT)
            # It was accepted by this agent already where the first answer was lost.
            if assignment.phase != AssignmentPhase.ACCEPTED.value or not boot_id:
                weights_of(assignment)
                _move(assignment, AssignmentPhase.ACCEPTED)
                assignment.accepted_at = now
                lease_s = assignment.round.job.job_spec.participation.lease_s
                assignment.lease_until = now + timedelta(seconds=lease_s)
                accepted.append(assignment)
            return assignment

        started = _each(calls, start)
        update_format.choose_chains(accepted)
        fields = ["phase", "accepted_at", "lease_until", "wire"]
        Assignment.objects.bulk_update(accepted, fields)
        for job_id in rows.jobs:
            request_advance(job_id)
        answers = AcceptAnswers([item for item in started if isinstance(item, Assignment)])
    return [answers.of(item) if isinstance(item, Assignment) else item for item in started]


def progress(calls: Sequence[Call]) -> list[Outcome]:
    """Training or uploading has begun. The lease starts anew."""
    with transaction.atomic():
        rows = LockedAssignments(calls)
        moved: list[Assignment] = []

        def follow(call: Call) -> None:
            assignment, target = rows.of(call), AssignmentPhase(call.body.phase)
            take_back(assignment)
            if assignment.phase != target.value:
                _move(assignment, target)
            moved.append(assignment)

        outcomes = _each(calls, follow)
        renew_leases(moved)
    for job_id in rows.jobs:
        wake_job(job_id)
    return outcomes


@dataclass(frozen=True)
class _ReportedValues:
    """A report with its metrics read and checked."""

    update: str | None
    examples: int
    metrics: dict[str, Any]
    bytes_up: int
    bytes_down: int

    @classmethod
    def read(cls, body: ReportBody) -> _ReportedValues:
        """Raises AssignmentRefused for metrics out of range."""
        metrics = body.read_metrics()
        faults = report_faults(metrics)
        if faults:
            raise InvalidReport(f"metrics: {faults[0]}")
        return cls(body.update, body.examples, metrics, body.bytes_up, body.bytes_down)

    def is_stored_in(self, assignment: Assignment) -> bool:
        """Whether the same report came before."""
        stored = (assignment.update_artefact_id, assignment.examples, assignment.metrics)
        same = stored == (self.update, self.examples, self.metrics)
        return AssignmentPhase(assignment.phase) in DELIVERED and same

    def check(self, assignment: Assignment) -> None:
        """Raises AssignmentRefused where the assignment takes no such report."""
        refusal = move_refusal(AssignmentPhase(assignment.phase), AssignmentPhase.REPORTED)
        if refusal:
            raise AssignmentRefused(refusal)
        if assignment.task == Task.EVALUATE.value and self.update is not None:
            raise AssignmentRefused("an evaluation has no update")
        unsent = self.update is None or assignment.update_artefact_id != self.update
        if assignment.task in SENDING and unsent:
            raise AssignmentRefused("upload the update before reporting it")
        cluster_folds.check_fold_report(assignment, self.examples)


class InvalidReport(AssignmentRefused):
    """A report that no phase of an assignment would take."""


def report(calls: Sequence[Call]) -> list[Outcome]:
    """Store reports. The same report can be repeated, another one is refused."""
    small = store_small_updates(calls)
    with transaction.atomic():
        rows = LockedAssignments(calls)
        now = timezone.now()
        reported: list[Assignment] = []
        events: list[JobEvent] = []

        def store(call: Call) -> None:
            assignment, values = rows.of(call), _ReportedValues.read(call.body)
            if values.is_stored_in(assignment):
                return
            if refusal := small.get(call.device.pk):
                raise refusal
            if call.body.data is not None:
                assignment.update_artefact_id = values.update
            values.check(assignment)
            _move(assignment, AssignmentPhase.REPORTED)
            assignment.update_artefact_id = values.update
            assignment.examples, assignment.metrics = values.examples, values.metrics
            # The device also counts interrupted transfers, the server only what arrived.
            assignment.bytes_up = values.bytes_up or assignment.bytes_up
            assignment.bytes_down = values.bytes_down or assignment.bytes_down
            assignment.ended_at = now
            reported.append(assignment)
            text = _reported_text(assignment, values)
            events.append(JobEvent(assignment.round.job_id, text, call.device.pk))

        outcomes = _each(calls, store)
        fields = ["phase", "update_artefact", "examples", "metrics", "ended_at"]
        Assignment.objects.bulk_update(reported, [*fields, "bytes_up", "bytes_down"])
        job_events(events)
        for job_id in sorted({item.round.job_id for item in reported}):
            request_advance(job_id)
    return outcomes


def _reported_text(assignment: Assignment, values: _ReportedValues) -> str:
    where = f"{assignment.device.name}, round {assignment.round.number}"
    metrics = values.metrics
    if assignment.task == Task.EVALUATE.value:
        score = metrics.get("rougeL")
        return f"{where}: evaluated, ROUGE-L {score:.1f}" if score is not None else where
    if assignment.task == Task.FOLD.value:
        return f"{where}: {cluster_folds.reported_text(assignment)}"
    text = f"{where}: trained on {values.examples} examples, loss {metrics.get('loss', 0):.3f}"
    before, after = metrics.get("reward_before"), metrics.get("reward_after")
    rewarded = before is not None and after is not None
    return f"{text}, reward {before:.3f} to {after:.3f}" if rewarded else text


def fail(calls: Sequence[Call]) -> list[Outcome]:
    return _end(calls, AssignmentPhase.FAILED)


def refuse(calls: Sequence[Call]) -> list[Outcome]:
    return _end(calls, AssignmentPhase.REFUSED)


def _end(calls: Sequence[Call], phase: AssignmentPhase) -> list[Outcome]:
    with transaction.atomic():
        rows = LockedAssignments(calls)
        now = timezone.now()
        ended: list[Assignment] = []
        events: list[JobEvent] = []

        def end(call: Call) -> None:
            assignment = rows.of(call)
            if assignment.phase == phase.value:
                return
            _move(assignment, phase)
            assignment.reason, assignment.retryable = reason_of(assignment, call.body)
            assignment.ended_at = now
            ended.append(assignment)
            where = f"{call.device.name}, round {assignment.round.number}"
            text = f"{where}: {phase.value}: {assignment.reason}"
            event = JobEvent(assignment.round.job_id, text, call.device.pk, EventLevel.WARNING)
            events.append(event)

        outcomes = _each(calls, end)
        Assignment.objects.bulk_update(ended, ["phase", "reason", "retryable", "ended_at"])
        job_events(events)
        for job_id in sorted({item.round.job_id for item in ended}):
            request_advance(job_id)
    return outcomes


def served(assignment: Assignment) -> tuple[Artefact, ...]:
    """The artefacts that a device may download for an assignment."""
    weights = weights_of(assignment)
    row = update_format.step_to(assignment.round.job, weights)
    model = (weights, row.step_artefact if row else None, server_state(assignment))
    inputs = (part.update_artefact for part in cluster_folds.fold_input_rows(assignment))
    return tuple(item for item in (*model, *inputs) if item is not None)


def assignment_of(device: Device, pk: UUID) -> Assignment:
    rows = Assignment.objects.select_related(
        "round__job", "round__base_artefact", "round__global_artefact", "device"
    )
    return get_object_or_404(rows, pk=pk, device=device)
