"""Who may send an update, and what becomes of it once all of it is here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

from rest_framework.exceptions import AuthenticationFailed, Throttled

from fedcore.errors import WireError
from fedcore.rounds.queries import move_refusal
from fedcore.rounds.types import LEASED, AssignmentPhase
from webapp.api.device import work
from webapp.api.device.device_tokens import SCHEME, DeviceThrottle, device_of
from webapp.devices.models import Device
from webapp.jobs.artefacts import update_format
from webapp.jobs.artefacts.partial_uploads import PartialUpload
from webapp.jobs.artefacts.store import ArtefactRefused, claim, local_file, store
from webapp.jobs.lifecycle.transitions import AssignmentRefused, add_traffic, renew_lease, take_back
from webapp.jobs.models import Artefact, ArtefactKind, Assignment


@dataclass(frozen=True)
class Intake:
    """An update that a device may send. ``held_bytes`` is its size where it is here already."""

    device: Device
    assignment: UUID
    sha256: str
    max_bytes: int
    lease_s: float
    held_bytes: int | None


def admit(authorization: str, pk: UUID, sha256: str) -> Intake:
    """Whether the bearer may send this update.

    Raises AuthenticationFailed, Throttled, Http404 for another's assignment, AssignmentRefused
    where it takes no update.
    """
    device = _device(authorization)
    assignment = work.assignment_of(device, pk)
    if assignment.task not in work.SENDING:
        raise AssignmentRefused("an evaluation has no update")
    take_back(assignment)
    refusal = move_refusal(AssignmentPhase(assignment.phase), AssignmentPhase.REPORTED)
    if refusal:
        raise AssignmentRefused(refusal)
    base = work.job_weights(assignment)
    return Intake(
        device,
        pk,
        sha256,
        update_format.max_update_bytes(assignment, base),
        assignment.round.job.job_spec.participation.lease_s,
        _held_bytes(device, assignment, sha256),
    )


def _device(authorization: str) -> Device:
    scheme, _, token = authorization.partition(" ")
    device = device_of(token.strip()) if scheme == SCHEME else None
    if device is None:
        raise AuthenticationFailed("give the token of an enrolled device")
    throttle = DeviceThrottle()
    caller = SimpleNamespace(auth=device)
    if not throttle.allow_request(caller, None):  # type: ignore[arg-type]
        raise Throttled(throttle.wait())
    return device


def _held_bytes(device: Device, assignment: Assignment, sha256: str) -> int | None:
    """The size of an update that this device has sent before, in any assignment of the job."""
    sent = Assignment.objects.filter(
        device=device,
        round__job=assignment.round.job_id,
        update_artefact=sha256,
        update_artefact__removed_at=None,
    )
    size: int | None = sent.values_list("update_artefact__size_bytes", flat=True).first()
    return size if size is not None and claim(sha256) else None


def begin(intake: Intake) -> None:
    """Bytes are coming: the assignment is uploading, and held for another lease."""
    work.progress(intake.device, intake.assignment, AssignmentPhase.UPLOADING.value)


def still_held(intake: Intake) -> bool:
    """Renew the lease while bytes arrive; False once the assignment is over."""
    return renew_lease(intake.assignment, intake.device, intake.lease_s)


def keep(intake: Intake, part: PartialUpload) -> None:
    """Check all that came against its hash and the round's base, and store it.

    Raises ArtefactRefused (422) for other bytes than announced or a malformed frame,
    AssignmentRefused where the assignment ended meanwhile; either way the bytes are gone.
    """
    try:
        _link(intake, _checked(intake, part))
    except (ArtefactRefused, AssignmentRefused):
        part.discard()
        raise
    part.discard()


def _checked(intake: Intake, part: PartialUpload) -> Artefact:
    found = part.sha256
    if found != intake.sha256:
        text = f"{part.size} bytes arrived whose SHA-256 is {found}; send them again"
        raise ArtefactRefused(text, 422)
    _check_fits(intake, part.path)
    return store(part.path, found, ArtefactKind.UPDATE, f"device:{intake.device.name}")


def _check_fits(intake: Intake, path: Path) -> None:
    assignment = work.assignment_of(intake.device, intake.assignment)
    try:
        update_format.check_update(path, work.job_weights(assignment), assignment)
    except WireError as error:
        raise ArtefactRefused(str(error), 422) from error


def keep_held(intake: Intake) -> None:
    """The bytes are here already: check that they belong to this assignment too, and say so."""
    artefact = Artefact.objects.get(pk=intake.sha256)
    claim(intake.sha256)
    try:
        with local_file(artefact) as path:
            _check_fits(intake, path)
    except FileNotFoundError as error:
        text = "these bytes have just been removed; send them again"
        raise ArtefactRefused(text, 409, Upload_Offset="0") from error
    _link(intake, artefact)


def _link(intake: Intake, artefact: Artefact) -> None:
    held = Assignment.objects.filter(
        pk=intake.assignment, phase__in=[phase.value for phase in LEASED]
    )
    if not held.update(update_artefact=artefact):
        raise AssignmentRefused("this assignment ended while its update was on its way")
    still_held(intake)


def count(intake: Intake, received: int) -> None:
    """Note the bytes that arrived, whatever became of them."""
    add_traffic(intake.assignment, up=received)
