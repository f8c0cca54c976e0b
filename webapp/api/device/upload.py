"""Uploads of updates, in any number of pieces: HEAD says how much is here, PATCH brings more.

The words are those of tus 1.0, without its creation call: an upload is named by its assignment and
the SHA-256 of its bytes. The bytes go past Django, from the socket to the disk and the hash.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404
from rest_framework.exceptions import APIException

from webapp.api.device import updates
from webapp.api.device.bodies import ClientDisconnected, body_of
from webapp.api.device.updates import Intake
from webapp.jobs.artefacts.partial_uploads import PartialUpload, received_bytes
from webapp.jobs.artefacts.store import ArtefactRefused
from webapp.jobs.lifecycle.transitions import AssignmentRefused
from webapp.transfer.asgi_tools import (
    App,
    Receive,
    Scope,
    Send,
    content_length,
    header,
    problem_body,
    run_database_call,
    send_response,
)

HEX = "[0-9a-f]"
UPDATE_PATH = re.compile(
    rf"/api/v1/device/assignments/({HEX}{{8}}(?:-{HEX}{{4}}){{3}}-{HEX}{{12}})/update/({HEX}{{64}})/"
)
CONTENT_TYPE = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0", "Cache-Control": "no-store"}
# After an answer that came before the body's end: so long, and so many bytes more, are taken.
LINGER_S, LINGER_BYTES = 2.0, 64 * 2**20


@dataclass(frozen=True)
class UploadResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class PatchHeaders:
    """What one PATCH says of itself, in bytes. ``brings`` is None where it does not say."""

    offset: int
    length: int
    brings: int | None

    @classmethod
    def read(cls, scope: Scope) -> PatchHeaders:
        """Raises ArtefactRefused for headers that make no sense."""
        if header(scope, b"content-type") != CONTENT_TYPE:
            raise ArtefactRefused(f"send the bytes with Content-Type {CONTENT_TYPE}", 415)
        offset, length = (_whole(scope, name) for name in (b"upload-offset", b"upload-length"))
        if offset > length:
            raise ArtefactRefused(f"byte {offset} lies beyond the end of {length} bytes", 416)
        piece = cls(offset, length, content_length(scope))
        if offset + (piece.brings or 0) > length:
            raise ArtefactRefused(f"more than the {length} bytes of Upload-Length", 413)
        return piece

    @property
    def completes(self) -> bool:
        return self.brings is not None and self.offset + self.brings == self.length


def _whole(scope: Scope, name: bytes) -> int:
    text = header(scope, name)
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise ArtefactRefused(f"give {name.decode().title()} as a whole number of bytes", 400)
    return int(text)


class UploadPace:
    """Refuses a sender that is too slow: each ``window_s`` of waiting must bring enough bytes."""

    def __init__(self, window_s: float, least_bps: float) -> None:
        self._window_s, self._least = window_s, window_s * least_bps
        self._waited_s, self._came = 0.0, 0

    @property
    def patience_s(self) -> float:
        """How long the next bytes may take."""
        return max(0.0, self._window_s - self._waited_s)

    def saw(self, waited_s: float, came: int) -> bool:
        """Whether it goes on after ``came`` bytes for which we waited ``waited_s``."""
        self._waited_s += waited_s
        self._came += came
        if self._waited_s < self._window_s:
            return True
        enough = self._came >= max(1.0, self._least)
        self._waited_s, self._came = 0.0, 0
        return enough


class Uploads:
    """An ASGI application around the site's that takes updates in."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = UPDATE_PATH.fullmatch(scope["path"])
        if asked is None:
            await self._app(scope, receive, send)
            return
        call = Call(scope, receive, UUID(asked.group(1)), asked.group(2))
        try:
            await call.say(send, await call.answered())
        except ClientDisconnected:
            return  # what came is kept
        finally:
            call.body.close()


class Call:
    """One HEAD or PATCH."""

    def __init__(self, scope: Scope, receive: Receive, assignment: UUID, sha256: str) -> None:
        self._scope = scope
        self._assignment, self._sha256 = assignment, sha256
        self._received = 0
        patching = scope["method"] == "PATCH"
        self.body = body_of(receive, content_length(scope) if patching else None)

    async def answered(self) -> UploadResponse:
        do = {"HEAD": self._head, "PATCH": self._patch}.get(self._scope["method"])
        if do is None:
            return _problem(405, "use HEAD or PATCH", {"Allow": "HEAD, PATCH"})
        if settings.SECURE_SSL_REDIRECT and not _is_secure(self._scope):
            return _problem(403, f"use {settings.PUBLIC_URL}")
        try:
            return await do()
        except (ArtefactRefused, AssignmentRefused, APIException, Http404) as refusal:
            return _refused(refusal)

    async def _head(self) -> UploadResponse:
        held, size = await run_database_call(self._there)
        known = {"Upload-Length": str(size)} if held else {}
        return UploadResponse(200, {**TUS, "Upload-Offset": str(size), **known})

    async def _patch(self) -> UploadResponse:
        intake, piece, part = await run_database_call(self._begun)
        if part is None:
            return UploadResponse(204, {**TUS, "Upload-Offset": str(intake.held_bytes)})
        try:
            await self._take(intake, part, piece)
        except BaseException:
            await run_database_call(self._ended, intake, part, None)
            raise
        await run_database_call(self._ended, intake, part, piece)
        return UploadResponse(204, {**TUS, "Upload-Offset": str(part.size)})

    def _admitted(self) -> Intake:
        given = header(self._scope, b"authorization")
        return updates.admit(given, self._assignment, self._sha256)

    def _there(self) -> tuple[bool, int]:
        """Whether all of it is here, and how much."""
        held = self._admitted().held_bytes
        if held is not None:
            return True, held
        return False, received_bytes(self._assignment, self._sha256)

    def _begun(self) -> tuple[Intake, PatchHeaders, PartialUpload | None]:
        """Who sends what, and where it goes; no part where nothing needs to be sent."""
        intake = self._admitted()
        piece = PatchHeaders.read(self._scope)
        if intake.held_bytes is not None:
            updates.keep_held(intake)
            return intake, piece, None
        if piece.length > intake.max_bytes:
            raise ArtefactRefused(f"more than the {intake.max_bytes} bytes expected here", 413)
        return intake, piece, _opened(intake, piece)

    def _ended(self, intake: Intake, part: PartialUpload, piece: PatchHeaders | None) -> None:
        """Keep the update where the piece completes it; let go either way."""
        try:
            if piece is not None and part.size == piece.length:
                updates.keep(intake, part)
        finally:
            part.close()
            if self._received:
                updates.count(intake, self._received)

    async def _take(self, intake: Intake, part: PartialUpload, piece: PatchHeaders) -> None:
        """Receive the body into the part. What came before an error is kept."""
        pace = UploadPace(settings.UPLOAD_WINDOW_S, settings.UPLOAD_MIN_BPS)
        renewed = time.monotonic()
        try:
            while not self.body.is_read:
                began = time.monotonic()
                self._received += (came := await self.body.move(part, pace.patience_s))
                if self._received > piece.length - piece.offset:
                    part.discard()
                    raise ArtefactRefused(f"more than the {piece.length} bytes announced", 413)
                if not pace.saw(time.monotonic() - began, came) and not self.body.is_read:
                    least = f"{settings.UPLOAD_MIN_BPS:g} bytes/s"
                    raise ArtefactRefused(f"slower than {least}; go on where it stopped", 408)
                if time.monotonic() - renewed > intake.lease_s / 3:
                    renewed = time.monotonic()
                    if not await run_database_call(updates.still_held, intake):
                        raise AssignmentRefused("this assignment is over; stop sending")
        finally:
            await self.body.settle()

    async def say(self, send: Send, found: UploadResponse) -> None:
        """Send the response, then read and drop the rest of the body for a while.

        Otherwise closing the connection could discard the response.
        """
        wants_body = self._scope["method"] == "PATCH" and not self.body.is_read
        headers = dict(found.headers)
        if wants_body or not self.body.keeps_open:
            headers["Connection"] = "close"
        await send_response(send, found.status, headers, found.body, more=wants_body)
        if wants_body:
            with suppress(ClientDisconnected):
                await self._linger()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        until, left = time.monotonic() + LINGER_S, LINGER_BYTES
        while left > 0 and not self.body.is_read and time.monotonic() < until:
            left -= await self.body.move(None, max(0.0, until - time.monotonic()))


def _opened(intake: Intake, piece: PatchHeaders) -> PartialUpload:
    """The upload's bytes so far, at the offset that the piece goes on from."""
    part = PartialUpload(intake.assignment, intake.sha256)
    try:
        if part.size > piece.length:
            part.restart()
        if part.size != piece.offset:
            text = f"{part.size} bytes are here; go on from there"
            raise ArtefactRefused(text, 409, Upload_Offset=str(part.size))
        updates.begin(intake)
        if piece.completes:
            part.hash_along()
    except BaseException:
        part.close()
        raise
    return part


def _is_secure(scope: Scope) -> bool:
    return scope["scheme"] == "https" or header(scope, b"x-forwarded-proto") == "https"


def _refused(refusal: Exception) -> UploadResponse:
    if isinstance(refusal, ArtefactRefused):
        return _problem(refusal.status, str(refusal), refusal.headers)
    if isinstance(refusal, APIException):
        wait = getattr(refusal, "wait", None)
        headers = {"Retry-After": str(max(1, int(wait)))} if wait else {}
        return _problem(refusal.status_code, str(refusal.detail), headers)
    if isinstance(refusal, Http404):
        return _problem(404, "there is no such assignment of this device")
    return _problem(409, str(refusal))


def _problem(status: int, reason: str, headers: Mapping[str, Any] | None = None) -> UploadResponse:
    told, body = problem_body(status, reason)
    return UploadResponse(status, {**TUS, **told, **(headers or {})}, body)
