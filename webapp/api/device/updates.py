"""Admission of uploads, and storing of complete updates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

from rest_framework.exceptions import AuthenticationFailed, Throttled

from fedcore.errors import WireError
from fedcore.formats.frame_header import read_header
from fedcore.formats.line_bodies import Progress
from fedcore.rounds.queries import move_refusal
from fedcore.rounds.types import LEASED, AssignmentPhase
from webapp.api.device.device_tokens import SCHEME, DeviceThrottle, device_of
from webapp.devices.models import Device
from webapp.jobs.artefacts import update_format
from webapp.jobs.artefacts.partial_uploads import PartialUpload
from webapp.jobs.artefacts.store import ArtefactRefused, claim, local_file, store
from webapp.jobs.lifecycle.transitions import AssignmentRefused, add_traffic, renew_lease, take_back
from webapp.jobs.models import Artefact, ArtefactKind, Assignment
from webapp.line import assignments
from webapp.line.calls import Call, Origin, weights_of


@dataclass(frozen=True)
class Intake:
    """An update that a device may send. ``stored_bytes``: its size if it is stored already."""

    device: Device
    assignment: UUID
    sha256: str
    max_bytes: int
    lease_s: float
    stored_bytes: int | None


def admit(authorization: str, pk: UUID, sha256: str) -> Intake:
    """Admit the bearer of a device token to send this update.

    Raises AuthenticationFailed, Throttled, Http404 for another device's assignment, and
    AssignmentRefused where the assignment takes no update.
    """
    scheme, _, token = authorization.partition(" ")
    device = device_of(token.strip()) if scheme == SCHEME else None
    if device is None:
        raise AuthenticationFailed("give the token of an enrolled device")
    throttle = DeviceThrottle()
    caller = SimpleNamespace(auth=device)
    if not throttle.allow_request(caller, None):  # type: ignore[arg-type]
        raise Throttled(throttle.wait())
    assignment = assignments.assignment_of(device, pk)
    if assignment.task not in assignments.SENDING:
        raise AssignmentRefused("an evaluation has no update")
    take_back(assignment)
    refusal = move_refusal(AssignmentPhase(assignment.phase), AssignmentPhase.REPORTED)
    if refusal:
        raise AssignmentRefused(refusal)
    base = weights_of(assignment)
    sent = Assignment.objects.filter(
        device=device,
        round__job=assignment.round.job_id,
        update_artefact=sha256,
        update_artefact__removed_at=None,
    )
    size_bytes: int | None = sent.values_list("update_artefact__size_bytes", flat=True).first()
    return Intake(
        device,
        pk,
        sha256,
        update_format.max_update_bytes(assignment, base),
        assignment.round.job.job_spec.participation.lease_s,
        size_bytes if size_bytes is not None and claim(sha256) else None,
    )


def begin(intake: Intake) -> None:
    """Mark the assignment as uploading and renew its lease."""
    body = Progress(intake.assignment, "uploading")
    origin = Origin(intake.device.pk, intake.device.line_epoch, intake.device.boot_id)
    (outcome,) = assignments.progress([Call(intake.device, origin, body)])
    if isinstance(outcome, Exception):
        raise outcome


def renew(intake: Intake) -> bool:
    """Renew the lease while bytes arrive; False once the assignment is over."""
    return renew_lease(intake.assignment, intake.device, intake.lease_s)


def store_update(intake: Intake, part: PartialUpload) -> None:
    """Check a complete upload against its hash and the round's base, and store it.

    Raises ArtefactRefused (422) for a wrong hash or an invalid frame, AssignmentRefused where the
    assignment ended meanwhile. The partial upload is discarded in any case.
    """
    try:
        if part.sha256 != intake.sha256:
            text = f"{part.size} bytes arrived whose SHA-256 is {part.sha256}; send them again"
            raise ArtefactRefused(text, 422)
        _check_frame(intake, part.path)
        origin = f"device:{intake.device.name}"
        _link(intake, store(part.path, part.sha256, ArtefactKind.UPDATE, origin))
    except (ArtefactRefused, AssignmentRefused):
        part.discard()
        raise
    part.discard()


def link_stored_update(intake: Intake) -> None:
    """Use an update that is stored already, if it is valid for this assignment too."""
    artefact = Artefact.objects.get(pk=intake.sha256)
    claim(intake.sha256)
    try:
        with local_file(artefact) as path:
            _check_frame(intake, path)
    except FileNotFoundError as error:
        text = "these bytes were just removed; send them again"
        raise ArtefactRefused(text, 409, Upload_Offset="0") from error
    _link(intake, artefact)


def _check_frame(intake: Intake, path: Path) -> None:
    assignment = assignments.assignment_of(intake.device, intake.assignment)
    try:
        update_format.check_update(read_header(path), weights_of(assignment), assignment)
    except WireError as error:
        raise ArtefactRefused(str(error), 422) from error


def _link(intake: Intake, artefact: Artefact) -> None:
    leased = Assignment.objects.filter(
        pk=intake.assignment, phase__in=[phase.value for phase in LEASED]
    )
    if not leased.update(update_artefact=artefact):
        raise AssignmentRefused("this assignment ended while its update was being sent")
    renew(intake)


def count(intake: Intake, received: int) -> None:
    """Count the bytes that arrived, also those of a refused update."""
    add_traffic(intake.assignment, up=received)
