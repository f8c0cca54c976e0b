"""Updates that travel within a report: checked and stored before the report is applied."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO

from fedcore.errors import WireError
from fedcore.formats.frame_header import parse_header
from webapp.jobs.artefacts import update_format
from webapp.jobs.artefacts.store import ArtefactRefused, SmallArtefact, store_small
from webapp.jobs.lifecycle.transitions import AssignmentRefused
from webapp.jobs.models import ArtefactKind, Assignment
from webapp.line.calls import Call, assignments_of, weights_of

WRONG_HASH = "the update's bytes have another SHA-256 than the report says; send them again"
UNKNOWN = "this device has no such assignment"


def store_small_updates(calls: Sequence[Call]) -> dict[int, Exception]:
    """Store the updates within these reports; returns the refusals by device."""
    with_data = [call for call in calls if call.body.data is not None]
    if not with_data:
        return {}
    rows = assignments_of({call.body.assignment for call in with_data})
    refusals: dict[int, Exception] = {}
    valid: list[SmallArtefact] = []
    for call in with_data:
        try:
            valid.append(_checked(call, rows.get(call.body.assignment)))
        except (ArtefactRefused, AssignmentRefused) as refusal:
            refusals[call.device.pk] = refusal
    store_small(valid)
    return refusals


def _checked(call: Call, assignment: Assignment | None) -> SmallArtefact:
    """Raises ArtefactRefused for bytes that are not the update of this assignment."""
    body, data = call.body, call.body.data
    if assignment is None or assignment.device_id != call.device.pk:
        raise ArtefactRefused(UNKNOWN, 404)
    if sha256(data).hexdigest() != body.update:
        raise ArtefactRefused(WRONG_HASH, 422)
    base = weights_of(assignment)
    largest = update_format.max_update_bytes(assignment, base)
    if len(data) > largest:
        text = f"the update has {len(data)} bytes; at most {largest} are accepted"
        raise ArtefactRefused(text, 413)
    try:
        header = parse_header(BytesIO(data), len(data), "the update")
        update_format.check_update(header, base, assignment)
    except WireError as error:
        raise ArtefactRefused(str(error), 422) from error
    origin = f"device:{call.device.name}"
    return SmallArtefact(body.update, data, ArtefactKind.UPDATE, origin)
