"""Calls of a device on its assignments: accept, progress, report, fail, refuse, download."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils import timezone

from fedcore.rounds.queries import move_refusal
from fedcore.rounds.types import ACTIVE, DELIVERED, AssignmentPhase, Task
from webapp.api.device.answers import AcceptAnswer, EmptyAnswer
from webapp.common.wake import wake_job
from webapp.devices.models import Device
from webapp.jobs.artefacts import update_format
from webapp.jobs.artefacts.streaming import stream
from webapp.jobs.lifecycle import cluster_folds
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.round_rows import is_buffered, state_before
from webapp.jobs.lifecycle.transitions import (
    AssignmentRefused,
    add_traffic,
    lock_job,
    move_assignment,
    renew_lease,
    request_advance,
    take_back,
)
from webapp.jobs.models import Artefact, Assignment, EventLevel, Participant

SENDING = (Task.TRAIN.value, Task.FOLD.value)  # they report an update


def accept(device: Device, pk: UUID, boot_id: str) -> AcceptAnswer:
    """Start an assignment. Raises AssignmentRefused where it is over or already started."""
    assignment = assignment_of(device, pk)
    if boot_id and device.boot_id and boot_id != device.boot_id:
        raise AssignmentRefused("a newer agent of this device has started; call hello again")
    if assignment.phase == AssignmentPhase.ACCEPTED.value and boot_id == device.boot_id != "":
        return _accept_answer(assignment)  # repeated because the first answer was lost
    spec = assignment.round.job.job_spec
    now = timezone.now()
    move_assignment(
        assignment,
        AssignmentPhase.ACCEPTED,
        accepted_at=now,
        lease_until=now + timedelta(seconds=spec.participation.lease_s),
    )
    request_advance(assignment.round.job_id)
    return _accept_answer(assignment)


def _accept_answer(assignment: Assignment) -> AcceptAnswer:
    round_, job = assignment.round, assignment.round.job
    weights = job_weights(assignment)
    participant = Participant.objects.get(job=job, slot=assignment.slot)
    state = server_state(assignment)
    # An asynchronous round does not end for a late device, so it has no deadline.
    deadline_at = None if is_buffered(round_) else round_.deadline_at
    return {
        "assignment": str(assignment.pk),
        "job": str(job.pk),
        "job_name": job.name,
        "round": round_.number,
        "task": assignment.task,
        "attempt": assignment.attempt,
        "slot": assignment.slot,
        "dataset": participant.dataset,
        "spec": job.spec,
        "tailoring": participant.tailoring,
        "model_fingerprint": job.model_fingerprint,
        "global": update_format.model_of(job, weights),
        "state": {"sha256": state.sha256, "size_bytes": state.size_bytes} if state else None,
        "wire": update_format.offer(assignment).to_dict(),
        "lease_s": job.job_spec.participation.lease_s,
        "deadline_at": deadline_at.isoformat() if deadline_at else None,
        "draw": assignment.attempt - 1 if is_buffered(round_) else 0,
        "max_update_bytes": update_format.max_update_bytes(assignment, weights),
        "fold": cluster_folds.fold_input(assignment),
    }


def server_state(assignment: Assignment) -> Artefact | None:
    """The strategy's state before the round, if the strategy sends it to training devices."""
    job = assignment.round.job
    if assignment.task != Task.TRAIN.value or not job.job_spec.strategy.family.serves_state:
        return None
    return state_before(assignment.round)


def job_weights(assignment: Assignment) -> Artefact:
    """The model of an assignment: the round's base to train, its result to evaluate.

    Agglomerative devices evaluate their own model, so they get the base.
    """
    round_ = assignment.round
    method = round_.job.job_spec.method.family
    evaluating = assignment.task == Task.EVALUATE.value and not method.keeps_weights_on_device
    weights = (round_.global_artefact if evaluating else None) or round_.base_artefact
    if weights is None:
        raise AssignmentRefused("the round has no model yet; wait for the next offer")
    return weights


def progress(device: Device, pk: UUID, phase: str) -> EmptyAnswer:
    """Training or uploading has begun. The call can be repeated."""
    assignment = assignment_of(device, pk)
    take_back(assignment)
    try:
        move_assignment(assignment, AssignmentPhase(phase))
    except AssignmentRefused:
        if assignment.phase != phase:  # not a repetition
            raise
    renew_lease(pk, device, assignment.round.job.job_spec.participation.lease_s)
    wake_job(assignment.round.job_id)
    return {}


def report(device: Device, pk: UUID, values: dict[str, Any]) -> EmptyAnswer:
    """Store a report. The same report can be repeated, another one is refused."""
    assignment = assignment_of(device, pk)
    update = values["update"]
    phase = AssignmentPhase(assignment.phase)
    new = (update, values["examples"], values["metrics"])
    stored = (assignment.update_artefact_id, assignment.examples, assignment.metrics)
    if phase in DELIVERED and stored == new:
        return {}
    refusal = move_refusal(phase, AssignmentPhase.REPORTED)
    if refusal:
        raise AssignmentRefused(refusal)
    if assignment.task == Task.EVALUATE.value and update is not None:
        raise AssignmentRefused("an evaluation has no update")
    sending = assignment.task in SENDING
    if sending and (update is None or assignment.update_artefact_id != update):
        raise AssignmentRefused("upload the update before reporting it")
    cluster_folds.check_fold_report(assignment, values["examples"])
    with transaction.atomic():
        lock_job(assignment.round.job_id)
        move_assignment(
            assignment,
            AssignmentPhase.REPORTED,
            update_artefact_id=update,
            examples=values["examples"],
            metrics=values["metrics"],
            # The device also counts interrupted transfers, the server only what arrived.
            bytes_up=values["bytes_up"] or assignment.bytes_up,
            bytes_down=values["bytes_down"] or assignment.bytes_down,
            ended_at=timezone.now(),
        )
        job_event(assignment.round.job, _reported_text(assignment, values), device=device)
        request_advance(assignment.round.job_id)
    return {}


def _reported_text(assignment: Assignment, values: dict[str, Any]) -> str:
    where = f"{assignment.device.name}, round {assignment.round.number}"
    metrics = values["metrics"]
    if assignment.task == Task.EVALUATE.value:
        score = metrics.get("rougeL")
        return f"{where}: evaluated, ROUGE-L {score:.1f}" if score is not None else where
    if assignment.task == Task.FOLD.value:
        return f"{where}: {cluster_folds.reported_text(assignment)}"
    text = f"{where}: trained on {values['examples']} examples, loss {metrics.get('loss', 0):.3f}"
    before, after = metrics.get("reward_before"), metrics.get("reward_after")
    rewarded = before is not None and after is not None
    return f"{text}, reward {before:.3f} to {after:.3f}" if rewarded else text


def fail(device: Device, pk: UUID, reason: str, retryable: bool) -> EmptyAnswer:
    return _end(device, pk, AssignmentPhase.FAILED, reason, retryable)


def refuse(device: Device, pk: UUID, reason: str) -> EmptyAnswer:
    return _end(device, pk, AssignmentPhase.REFUSED, reason, False)


def _end(
    device: Device, pk: UUID, phase: AssignmentPhase, reason: str, retryable: bool
) -> EmptyAnswer:
    assignment = assignment_of(device, pk)
    if assignment.phase == phase.value:
        return {}
    with transaction.atomic():
        lock_job(assignment.round.job_id)
        move_assignment(
            assignment, phase, reason=reason, retryable=retryable, ended_at=timezone.now()
        )
        text = f"{device.name}, round {assignment.round.number}: {phase.value}: {reason}"
        job_event(assignment.round.job, text, EventLevel.WARNING, device)
        request_advance(assignment.round.job_id)
    return {}


def download(request: HttpRequest, device: Device, sha256: str) -> HttpResponseBase:
    """Send an artefact that one of the device's open assignments needs."""
    open_ = Assignment.objects.filter(
        device=device, phase__in=[phase.value for phase in ACTIVE]
    ).select_related("round__base_artefact", "round__global_artefact", "round__job")
    for assignment in open_:
        for artefact in served(assignment):
            if artefact.sha256 == sha256:
                response = stream(request, artefact)
                add_traffic(assignment.pk, down=getattr(response, "sent_bytes", 0))
                return response
    raise Http404


def served(assignment: Assignment) -> tuple[Artefact, ...]:
    """The artefacts that a device may download for an assignment."""
    weights = job_weights(assignment)
    row = update_format.step_to(assignment.round.job, weights)
    model = (weights, row.step_artefact if row else None, server_state(assignment))
    inputs = (part.update_artefact for part in cluster_folds.fold_input_rows(assignment))
    return tuple(item for item in (*model, *inputs) if item is not None)


def assignment_of(device: Device, pk: UUID) -> Assignment:
    rows = Assignment.objects.select_related(
        "round__job", "round__base_artefact", "round__global_artefact", "device"
    )
    return get_object_or_404(rows, pk=pk, device=device)
