"""Applies the frames of many lines to the database, in a thread of ``webapp.line.batches``.

Frames of one kind are applied together. Should that fail, each of them is tried alone, so that no
device's frame can hinder another's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db import DatabaseError, DataError, InterfaceError, OperationalError
from django.http import Http404

from fedcore.formats import line_bodies as bodies
from fedcore.formats.line_messages import (
    HELLO_AGAIN,
    REPLACED,
    REVOKED,
    Message,
    MessageError,
    body_of,
)
from webapp.devices.models import Device
from webapp.jobs.artefacts.store import ArtefactRefused
from webapp.jobs.lifecycle.transitions import AssignmentRefused
from webapp.line import assignments, presence
from webapp.line.assignments import InvalidReport
from webapp.line.calls import Call, Origin
from webapp.line.closing import LineClosed
from webapp.line.presence import InvalidSamples

log = logging.getLogger(__name__)

NOT_FOUND = "this device has no such assignment"
LATER = "the site cannot reach its database; this will be tried again"
UNFIT = "a value does not fit into the database"
UNREACHABLE = (InterfaceError, OperationalError)
INTERNAL = "an error of the site, which its log describes"

# By kind of body: applies calls, and returns for each the answer's body, None or an exception.
HANDLERS: Mapping[type, Callable[[Sequence[Call]], list[Any]]] = {
    bodies.Hello: presence.hello,
    bodies.Accept: assignments.accept,
    bodies.Progress: assignments.progress,
    bodies.ReportBody: assignments.report,
    bodies.FailBody: assignments.fail,
    bodies.Refuse: assignments.refuse,
    bodies.MeasurementsBody: presence.measure,
    bodies.HealthBody: presence.store_health,
}
Received = tuple[Origin, Message]


def apply_frames(received: Sequence[Received]) -> list[Message | LineClosed]:
    """The answer or acknowledgement of each frame, or why its line must end.

    A batch has one frame of a line at most.
    """
    devices = Device.objects.in_bulk({origin.device_id for origin, _ in received})
    answers: dict[int, Message | LineClosed] = {}
    groups: dict[type, dict[int, Call]] = {}
    for index, (origin, message) in enumerate(received):
        device = devices.get(origin.device_id)
        if device is None or device.revoked_at is not None:
            answers[index] = LineClosed(REVOKED)
            continue
        if device.line_epoch != origin.epoch:
            answers[index] = LineClosed(REPLACED)
            continue
        if message.kind != bodies.UpKind.HELLO.value and origin.boot_id != device.boot_id:
            answers[index] = LineClosed(HELLO_AGAIN)
            continue
        try:
            body = bodies.read_up(message.kind, message.body)
        except MessageError as error:
            answers[index] = refusal(message.n, 400, str(error))
            continue
        groups.setdefault(type(body), {})[index] = Call(device, origin, body)
    for kind, calls in groups.items():
        outcomes = _outcomes(HANDLERS[kind], list(calls.values()))
        for index, outcome in zip(calls, outcomes, strict=True):
            answers[index] = _answer(received[index][1].n, outcome)
    return [answers[index] for index in range(len(received))]


def _outcomes(handler: Callable[[Sequence[Call]], list[Any]], calls: Sequence[Call]) -> list[Any]:
    try:
        return handler(calls)
    except UNREACHABLE as error:  # each further try would wait for as long
        return [error] * len(calls)
    except Exception as error:  # of one device's frame, perhaps: the others go on
        if len(calls) == 1:
            return [error]
        log.info("%d frames are applied one by one: %s", len(calls), error)
    return [_outcomes(handler, [call])[0] for call in calls]


def _answer(number: int | None, outcome: Any) -> Message:
    if outcome is None:
        return Message(ack=number)
    if not isinstance(outcome, Exception):
        return Message(re=number, body=body_of(outcome))
    if isinstance(outcome, (MessageError, InvalidReport, InvalidSamples)):
        return refusal(number, 400, str(outcome))
    if isinstance(outcome, AssignmentRefused):
        return refusal(number, 409, str(outcome))
    if isinstance(outcome, ArtefactRefused):
        return refusal(number, outcome.status, str(outcome))
    if isinstance(outcome, Http404):
        return refusal(number, 404, NOT_FOUND)
    if isinstance(outcome, DataError):
        return refusal(number, 400, UNFIT)
    if isinstance(outcome, DatabaseError):
        log.warning("a frame waits for the database: %s", outcome)
        return refusal(number, 503, LATER)
    log.error("a frame was not applied", exc_info=outcome)
    return refusal(number, 500, INTERNAL)


def refusal(number: int | None, status: int, detail: str) -> Message:
    body = body_of(bodies.RefusalBody(detail.replace("\x00", "")[:2000]))
    return Message(re=number, status=status, body=body)
