"""What a device does with its assignments: rows are read, moved and answered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils import timezone

from fedcore.errors import WireError
from fedcore.plan.frame_header import read_header
from fedcore.rounds import ACTIVE, DELIVERED, HELD, AssignmentPhase, Task, move_refusal
from webapp.devices.models import Device
from webapp.events import job_event
from webapp.jobs.artefacts import ArtefactRefused, local_file, received, store, stream
from webapp.jobs.models import Artefact, ArtefactKind, Assignment, Level, Participant
from webapp.jobs.transitions import (
    AssignmentRefused,
    add_traffic,
    lock_job,
    look_at,
    move_assignment,
    renew_lease,
)
from webapp.wake import wake_job

# Metadata of a frame may add this much to the tensors' bytes.
FRAME_SLACK_BYTES = 65_536
UPDATE_DTYPE = "F32"


def accept(device: Device, pk: UUID, boot_id: str) -> dict[str, Any]:
    """Hand the work out. Raises AssignmentRefused where it is over or already held."""
    assignment = _assignment(device, pk)
    if boot_id and device.boot_id and boot_id != device.boot_id:
        raise AssignmentRefused("this agent was replaced by a newer start; say hello again")
    if assignment.phase == AssignmentPhase.ACCEPTED.value and boot_id == device.boot_id != "":
        return _work(assignment)  # it asks again because the first answer was lost
    spec = assignment.round.job.job_spec
    now = timezone.now()
    move_assignment(
        assignment,
        AssignmentPhase.ACCEPTED,
        accepted_at=now,
        lease_until=now + timedelta(seconds=spec.participation.lease_s),
    )
    look_at(assignment.round.job_id)
    return _work(assignment)


def _work(assignment: Assignment) -> dict[str, Any]:
    round_, job = assignment.round, assignment.round.job
    weights = job_weights(assignment)
    participant = Participant.objects.get(job=job, slot=assignment.slot)
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
        "model_fingerprint": job.model_fingerprint,
        "global": {"sha256": weights.sha256, "size_bytes": weights.size_bytes},
        "lease_s": job.job_spec.participation.lease_s,
        "deadline_at": round_.deadline_at.isoformat() if round_.deadline_at else None,
        "max_update_bytes": weights.size_bytes + FRAME_SLACK_BYTES,
    }


def job_weights(assignment: Assignment) -> Artefact:
    """What an assignment works on: the round's base to train, its result to evaluate."""
    round_ = assignment.round
    evaluating = assignment.task == Task.EVALUATE.value
    weights = (round_.global_artefact if evaluating else None) or round_.base_artefact
    if weights is None:
        raise AssignmentRefused("the round has no model yet; wait for the next offer")
    return weights


def progress(device: Device, pk: UUID, phase: str) -> dict[str, Any]:
    """Note that training or uploading has begun; saying it twice is harmless."""
    assignment = _assignment(device, pk)
    if assignment.phase != phase:
        move_assignment(assignment, AssignmentPhase(phase))
    renew_lease(pk, device, assignment.round.job.job_spec.participation.lease_s)
    wake_job(assignment.round.job_id)
    return {}


def report(device: Device, pk: UUID, values: dict[str, Any]) -> dict[str, Any]:
    """Take an answer. The same answer again is fine, a different one is not."""
    assignment = _assignment(device, pk)
    update = values["update"]
    phase = AssignmentPhase(assignment.phase)
    told = (update, values["examples"], values["metrics"])
    if phase in DELIVERED and _answer(assignment) == told:
        return {}
    refusal = move_refusal(phase, AssignmentPhase.REPORTED)
    if refusal:
        raise AssignmentRefused(refusal)
    if assignment.task == Task.EVALUATE.value and update is not None:
        raise AssignmentRefused("an evaluation has no update")
    training = assignment.task == Task.TRAIN.value
    if training and (update is None or assignment.update_artefact_id != update):
        raise AssignmentRefused("upload the update before reporting it")
    with transaction.atomic():
        lock_job(assignment.round.job_id)
        move_assignment(
            assignment,
            AssignmentPhase.REPORTED,
            update_artefact_id=update,
            examples=values["examples"],
            metrics=values["metrics"],
            # The device also counts what was sent in vain; the server only what arrived.
            bytes_up=values["bytes_up"] or assignment.bytes_up,
            bytes_down=values["bytes_down"] or assignment.bytes_down,
            ended_at=timezone.now(),
        )
        job_event(assignment.round.job, _reported_text(assignment, values), device=device)
        look_at(assignment.round.job_id)
    return {}


def _answer(assignment: Assignment) -> tuple[str | None, int, dict[str, Any]]:
    return assignment.update_artefact_id, assignment.examples, assignment.metrics


def _reported_text(assignment: Assignment, values: dict[str, Any]) -> str:
    where = f"{assignment.device.name}, round {assignment.round.number}"
    metrics = values["metrics"]
    if assignment.task == Task.EVALUATE.value:
        score = metrics.get("rougeL")
        return f"{where}: evaluated, ROUGE-L {score:.1f}" if score is not None else where
    return f"{where}: trained on {values['examples']} examples, loss {metrics.get('loss', 0):.3f}"


def fail(device: Device, pk: UUID, reason: str, retryable: bool) -> dict[str, Any]:
    return _end(device, pk, AssignmentPhase.FAILED, reason, retryable)


def refuse(device: Device, pk: UUID, reason: str) -> dict[str, Any]:
    return _end(device, pk, AssignmentPhase.REFUSED, reason, False)


def _end(
    device: Device, pk: UUID, phase: AssignmentPhase, reason: str, retryable: bool
) -> dict[str, Any]:
    assignment = _assignment(device, pk)
    if assignment.phase == phase.value:
        return {}
    with transaction.atomic():
        lock_job(assignment.round.job_id)
        move_assignment(
            assignment, phase, reason=reason, retryable=retryable, ended_at=timezone.now()
        )
        text = f"{device.name}, round {assignment.round.number}: {phase.value}: {reason}"
        job_event(assignment.round.job, text, Level.WARNING, device)
        look_at(assignment.round.job_id)
    return {}


def store_update(device: Device, pk: UUID, chunks: Iterable[bytes], sha256: str) -> Artefact:
    """Stream an update in, check its header against the round's base, store it."""
    assignment = _assignment(device, pk)
    refusal = move_refusal(AssignmentPhase(assignment.phase), AssignmentPhase.REPORTED)
    if refusal or assignment.task != Task.TRAIN.value:
        raise AssignmentRefused(refusal or "an evaluation has no update")
    base = job_weights(assignment)
    with received(chunks, sha256, base.size_bytes + FRAME_SLACK_BYTES) as path:
        try:
            _check_header(path, base, assignment)
        except WireError as error:
            raise ArtefactRefused(str(error), 422) from error
        artefact = store(path, sha256, ArtefactKind.UPDATE, f"device:{device.name}")
    held = Assignment.objects.filter(pk=pk, phase__in=[phase.value for phase in HELD])
    if not held.update(update_artefact=artefact):
        raise AssignmentRefused("this assignment ended while its update was on its way")
    renew_lease(pk, device, assignment.round.job.job_spec.participation.lease_s)
    add_traffic(pk, up=artefact.size_bytes)
    return artefact


def _check_header(path: Any, base: Artefact, assignment: Assignment) -> None:
    """Names, shapes and origin, from the header alone; the aggregation reads the numbers."""
    header = read_header(path)
    with local_file(base) as base_path:
        expected = read_header(base_path).shapes
    if header.shapes != expected:
        strange = sorted(set(header.shapes.items()) ^ set(expected.items()))
        raise WireError(f"the update does not fit the model: {strange[0][0]!r} differs")
    for name, entry in header.tensors.items():
        if entry.dtype != UPDATE_DTYPE:
            raise WireError(f"tensor {name!r} is {entry.dtype}, not {UPDATE_DTYPE}")
    due = {
        "kind": "update",
        "job": str(assignment.round.job_id),
        "round": str(assignment.round.number),
        "base": base.sha256,
    }
    for key, value in due.items():
        if header.meta.get(key) != value:
            raise WireError(f"foreign update: {key} is {header.meta.get(key)!r}, not {value!r}")


def download(request: HttpRequest, device: Device, sha256: str) -> HttpResponseBase:
    """Serve an artefact that one of the device's open assignments works on."""
    mine = Assignment.objects.filter(
        device=device, phase__in=[phase.value for phase in ACTIVE]
    ).select_related("round__base_artefact", "round__global_artefact", "round__job")
    for assignment in mine:
        weights = job_weights(assignment)
        if weights.sha256 == sha256:
            response = stream(request, weights)
            add_traffic(assignment.pk, down=int(response.headers.get("Content-Length", 0)))
            return response
    raise Http404


def _assignment(device: Device, pk: UUID) -> Assignment:
    rows = Assignment.objects.select_related(
        "round__job", "round__base_artefact", "round__global_artefact", "device"
    )
    return get_object_or_404(rows, pk=pk, device=device)
