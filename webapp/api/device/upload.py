"""Resumable uploads of updates: HEAD returns the offset, PATCH appends bytes.

The protocol is tus 1.0 without its creation call: an upload is named by its assignment and SHA-256.
The bytes bypass Django, from the socket to disk and hash.
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
# Limits of reading on after a response that was sent before the body's end.
LINGER_S, LINGER_BYTES = 2.0, 64 * 2**20


@dataclass(frozen=True)
class UploadResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class PatchHeaders:
    """Headers of a PATCH, in bytes. ``content_bytes``: Content-Length, None if it is missing."""

    offset: int
    length: int
    content_bytes: int | None

    @classmethod
    def read(cls, scope: Scope) -> PatchHeaders:
        """Raises ArtefactRefused for invalid headers."""
        if header(scope, b"content-type") != CONTENT_TYPE:
            raise ArtefactRefused(f"send the bytes with Content-Type {CONTENT_TYPE}", 415)
        positions = []
        for name in (b"upload-offset", b"upload-length"):
            text = header(scope, name)
            if not re.fullmatch(r"[0-9]{1,19}", text):
                raise ArtefactRefused(
                    f"give {name.decode().title()} as a whole number of bytes", 400
                )
            positions.append(int(text))
        offset, length = positions
        if offset > length:
            raise ArtefactRefused(f"byte {offset} lies beyond the end of {length} bytes", 416)
        patch = cls(offset, length, content_length(scope))
        if offset + (patch.content_bytes or 0) > length:
            raise ArtefactRefused(f"more than the {length} bytes of Upload-Length", 413)
        return patch

    @property
    def completes(self) -> bool:
        """Whether the body ends the upload."""
        return self.content_bytes is not None and self.offset + self.content_bytes == self.length


class UploadPace:
    """Minimum throughput: each ``window_s`` of waiting must bring enough bytes."""

    def __init__(self, window_s: float, least_bps: float) -> None:
        self._window_s, self._least = window_s, window_s * least_bps
        self._waited_s, self._received = 0.0, 0

    @property
    def patience_s(self) -> float:
        """Seconds that the next bytes may take."""
        return max(0.0, self._window_s - self._waited_s)

    def add(self, waited_s: float, received: int) -> bool:
        """Count ``received`` bytes; False if the sender is too slow."""
        self._waited_s += waited_s
        self._received += received
        if self._waited_s < self._window_s:
            return True
        enough = self._received >= max(1.0, self._least)
        self._waited_s, self._received = 0.0, 0
        return enough


class Uploads:
    """An ASGI application around the site's that receives updates."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = UPDATE_PATH.fullmatch(scope["path"])
        if match is None:
            await self._app(scope, receive, send)
            return
        call = UploadCall(scope, receive, UUID(match.group(1)), match.group(2))
        try:
            await call.respond(send, await call.handle())
        except ClientDisconnected:
            return  # received bytes stay
        finally:
            call.body.close()


class UploadCall:
    """One HEAD or PATCH."""

    def __init__(self, scope: Scope, receive: Receive, assignment: UUID, sha256: str) -> None:
        self._scope = scope
        self._assignment, self._sha256 = assignment, sha256
        self._received = 0
        patching = scope["method"] == "PATCH"
        self.body = body_of(receive, content_length(scope) if patching else None)

    async def handle(self) -> UploadResponse:
        if self._scope["method"] not in ("HEAD", "PATCH"):
            return _problem(405, "use HEAD or PATCH", {"Allow": "HEAD, PATCH"})
        schemes = (self._scope["scheme"], header(self._scope, b"x-forwarded-proto"))
        if settings.SECURE_SSL_REDIRECT and "https" not in schemes:
            return _problem(403, f"use {settings.PUBLIC_URL}")
        try:
            if self._scope["method"] == "PATCH":
                return await self._patch()
            stored, size = await run_database_call(self._offset)
            known = {"Upload-Length": str(size)} if stored else {}
            return UploadResponse(200, {**TUS, "Upload-Offset": str(size), **known})
        except (ArtefactRefused, AssignmentRefused, APIException, Http404) as refusal:
            if isinstance(refusal, ArtefactRefused):
                return _problem(refusal.status, str(refusal), refusal.headers)
            if isinstance(refusal, APIException):
                wait = getattr(refusal, "wait", None)
                headers = {"Retry-After": str(max(1, int(wait)))} if wait else {}
                return _problem(refusal.status_code, str(refusal.detail), headers)
            if isinstance(refusal, Http404):
                return _problem(404, "there is no such assignment of this device")
            return _problem(409, str(refusal))

    async def _patch(self) -> UploadResponse:
        intake, patch, part = await run_database_call(self._begin)
        if part is None:
            return UploadResponse(204, {**TUS, "Upload-Offset": str(intake.stored_bytes)})
        try:
            await self._receive_body(intake, part, patch)
        except BaseException:
            await run_database_call(self._end, intake, part, None)
            raise
        await run_database_call(self._end, intake, part, patch)
        return UploadResponse(204, {**TUS, "Upload-Offset": str(part.size)})

    def _admit(self) -> Intake:
        authorization = header(self._scope, b"authorization")
        return updates.admit(authorization, self._assignment, self._sha256)

    def _offset(self) -> tuple[bool, int]:
        """Whether the update is stored, and the bytes that have arrived."""
        stored_bytes = self._admit().stored_bytes
        if stored_bytes is not None:
            return True, stored_bytes
        return False, received_bytes(self._assignment, self._sha256)

    def _begin(self) -> tuple[Intake, PatchHeaders, PartialUpload | None]:
        """Admit the call and open its partial upload; None where the update is stored already."""
        intake = self._admit()
        patch = PatchHeaders.read(self._scope)
        if intake.stored_bytes is not None:
            updates.link_stored_update(intake)
            return intake, patch, None
        if patch.length > intake.max_bytes:
            raise ArtefactRefused(f"more than the {intake.max_bytes} bytes expected here", 413)
        # The partial upload, at the offset of the patch.
        part = PartialUpload(intake.assignment, intake.sha256)
        try:
            if part.size > patch.length:
                part.restart()
            if part.size != patch.offset:
                text = f"{part.size} bytes are here; resume from there"
                raise ArtefactRefused(text, 409, Upload_Offset=str(part.size))
            updates.begin(intake)
            if patch.completes:
                part.hash_along()
        except BaseException:
            part.close()
            raise
        return intake, patch, part

    def _end(self, intake: Intake, part: PartialUpload, patch: PatchHeaders | None) -> None:
        """Store the update if it is complete; close the partial upload in any case."""
        try:
            if patch is not None and part.size == patch.length:
                updates.store_update(intake, part)
        finally:
            part.close()
            if self._received:
                updates.count(intake, self._received)

    async def _receive_body(self, intake: Intake, part: PartialUpload, patch: PatchHeaders) -> None:
        """Append the body to the partial upload; bytes received before an error stay."""
        pace = UploadPace(settings.UPLOAD_WINDOW_S, settings.UPLOAD_MIN_BPS)
        renewed = time.monotonic()
        try:
            while not self.body.is_read:
                began = time.monotonic()
                received = await self.body.move(part, pace.patience_s)
                self._received += received
                if self._received > patch.length - patch.offset:
                    part.discard()
                    raise ArtefactRefused(f"more than the {patch.length} bytes announced", 413)
                if not pace.add(time.monotonic() - began, received) and not self.body.is_read:
                    least = f"{settings.UPLOAD_MIN_BPS:g} bytes/s"
                    raise ArtefactRefused(f"slower than {least}; resume where it stopped", 408)
                if time.monotonic() - renewed > intake.lease_s / 3:
                    renewed = time.monotonic()
                    if not await run_database_call(updates.renew, intake):
                        raise AssignmentRefused("this assignment is over; stop sending")
        finally:
            await self.body.settle()

    async def respond(self, send: Send, response: UploadResponse) -> None:
        """Send the response, then read and drop the rest of the body for a while.

        Otherwise closing the connection could discard the response.
        """
        wants_body = self._scope["method"] == "PATCH" and not self.body.is_read
        headers = dict(response.headers)
        if wants_body or not self.body.keeps_open:
            headers["Connection"] = "close"
        await send_response(send, response.status, headers, response.body, more=wants_body)
        if wants_body:
            with suppress(ClientDisconnected):
                until, remaining = time.monotonic() + LINGER_S, LINGER_BYTES
                while remaining > 0 and not self.body.is_read and time.monotonic() < until:
                    wait_s = max(0.0, until - time.monotonic())
                    remaining -= await self.body.move(None, wait_s)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _problem(status: int, reason: str, headers: Mapping[str, Any] | None = None) -> UploadResponse:
    problem_headers, body = problem_body(status, reason)
    return UploadResponse(status, {**TUS, **problem_headers, **(headers or {})}, body)
