"""Bodies are bounded before they are taken in.

Django's ASGI handler writes a whole body to the disk before any view sees it: without this, whoever
reaches the site could fill that disk, with or without a token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from django.conf import settings

from fedcore.rounds import HELD
from webapp.api.device.authentication import SCHEME
from webapp.api.device.work import FRAME_SLACK_BYTES, job_weights
from webapp.api.problems import CONTENT_TYPE, document
from webapp.devices.models import Credential, hashed
from webapp.jobs.artefacts import DISK_FULL, FULL_TEXT
from webapp.jobs.models import Assignment
from webapp.jobs.transitions import AssignmentRefused

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UPDATE_PATH = re.compile(r"/api/v1/device/assignments/([0-9a-f-]{36})/update/")


@dataclass(frozen=True)
class Bound:
    """How large a body may be, and the answer to a larger one."""

    max_bytes: int
    status: int
    reason: str


class BoundedBodies:
    """An ASGI application around Django's that answers too large a body itself."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bound = await _bound_of(scope)
        if _announced(scope) > bound.max_bytes:
            await _answer(send, bound.status, bound.reason)
            return
        exchange = _Exchange(bound, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except OSError as error:  # the disk that takes the body in
            if exchange.answered or error.errno not in DISK_FULL:
                raise
            await _answer(send, 507, FULL_TEXT)
        if exchange.too_large and not exchange.answered:
            await _answer(send, bound.status, bound.reason)


class _Exchange:
    """One request as it comes and its answer as it goes, both watched."""

    def __init__(self, bound: Bound, receive: Receive, send: Send) -> None:
        self._bound, self._receive, self._send = bound, receive, send
        self._taken = 0
        self.too_large = self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self._taken <= self._bound.max_bytes:
            return message
        self.too_large = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.answered = True
        await self._send(message)


async def _bound_of(scope: Scope) -> Bound:
    usual = int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    update = UPDATE_PATH.fullmatch(scope["path"]) if scope["method"] == "PUT" else None
    if update is None:
        return Bound(usual, 413, f"more than the {usual} bytes expected here")
    given = _header(scope, b"authorization")
    bound: Bound = await database_sync_to_async(_bound_of_update)(update.group(1), given, usual)
    return bound


def _bound_of_update(assignment: str, authorization: str, usual: int) -> Bound:
    """What an update may weigh; a body that is no larger than usual is the view's to judge."""
    scheme, _, token = authorization.partition(" ")
    digest = hashed(token.strip()) if scheme == SCHEME else ""
    known = Credential.objects.filter(token_hash=digest, device__revoked_at=None).first()
    if known is None:
        return Bound(usual, 401, "give the token of an enrolled device")
    try:
        held = Assignment.objects.select_related(
            "round__base_artefact", "round__global_artefact"
        ).get(
            pk=UUID(assignment),
            device=known.device_id,
            phase__in=[phase.value for phase in HELD],
        )
        largest = job_weights(held).size_bytes + FRAME_SLACK_BYTES
    except (ValueError, Assignment.DoesNotExist, AssignmentRefused):
        return Bound(usual, 409, "this assignment takes no update; wait for the next offer")
    return Bound(max(usual, largest), 413, f"more than the {largest} bytes expected here")


def _announced(scope: Scope) -> int:
    """Content-Length; 0 where it is not said or nonsense."""
    text = _header(scope, b"content-length")
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else 0


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps(document(status, reason)).encode()
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
