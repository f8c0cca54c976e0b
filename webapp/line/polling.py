"""The line by POST and long poll, for devices whose proxies let no WebSocket through.

Each poll carries messages both ways, and numbers its frames from 1. One that waits is answered at
once where there is something to tell, else as soon as the site has a frame for the device. While it
waits, the device sends its frames by others, which do not wait. Any web process may take each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from django.db import DatabaseError
from msgspec import Raw

from fedcore.formats.line_bodies import POLL_REQUEST, PollAnswer, PollRequest
from fedcore.formats.line_messages import (
    MALFORMED,
    MAX_POLL_BYTES,
    POLL_PATH,
    REVOKED,
    TOO_MUCH,
    MessageError,
    body_of,
    read,
)
from webapp.devices.device_messages import announce_line
from webapp.devices.models import LineChannel
from webapp.line.application import NO_CREDENTIAL, TOO_MANY_LINES
from webapp.line.closing import LineClosed
from webapp.line.frames import LATER
from webapp.line.hub import Hub
from webapp.line.open_lines import write_heartbeat
from webapp.line.opening import (
    OpenedLine,
    TooManyLines,
    continue_line,
    is_valid,
    open_line,
    token_of,
)
from webapp.transfer.asgi_tools import (
    App,
    Receive,
    Scope,
    Send,
    header,
    problem_body,
    send_response,
)

log = logging.getLogger(__name__)

STATUS_OF = {REVOKED: 401, MALFORMED: 400, TOO_MUCH: 429}  # by close code; else HELLO_AGAIN_STATUS
ANOTHER_LINE = "this device has a newer line; say hello again"
HELLO_AGAIN_STATUS = 409
TOO_LARGE = f"a poll has at most {MAX_POLL_BYTES} bytes; send fewer messages at once"


class PollRefused(Exception):
    """The poll is answered with a problem document."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class LinePolls:
    """Takes the devices' long polls; everything else goes to ``app``."""

    def __init__(self, app: App, hub: Hub) -> None:
        self._app = app
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if (scope["method"], path) != ("POST", POLL_PATH):
            await self._app(scope, receive, send)
            return
        self._hub.start()
        try:
            request = read(await _body(receive), POLL_REQUEST)
            token = token_of(header(scope, b"authorization"))
            opened = await self._hub.batches.run(
                partial(_opened, token, request, self._hub.may_open)
            )
            answer = await self._answer(opened, request, receive)
            status, body = 200, bytes(body_of(answer))
            headers = {"content-type": "application/json", "cache-control": "no-store"}
        except (PollRefused, MessageError) as error:
            status = error.status if isinstance(error, PollRefused) else 400
            headers, body = problem_body(status, str(error))
        except DatabaseError as error:
            log.warning("a poll waits: %s", error)
            status = 503
            headers, body = problem_body(status, LATER)
        await send_response(send, status, headers, body)

    async def _answer(
        self, opened: OpenedLine, request: PollRequest, receive: Receive
    ) -> PollAnswer:
        poll = _Poll()
        takes_frames = bool(request.wait_s) or not request.line
        line = self._hub.line(opened, poll, poll.end, listed=takes_frames)
        try:
            await self._hub.limits(line.device_id).frames.spend(1)  # also a poll without messages
            for raw in request.messages:
                await line.receive(bytes(raw))
            if not request.line and line.said_hello:
                announce_line(line.device_id, opened.epoch)
            if line.said_hello:
                await self._hub.batches.run(partial(write_heartbeat, [line.device_id]))
                if takes_frames:
                    await self._hub.delivery.send_open_offers(line.device_id, request.queued)
            await poll.wait(request.wait_s, receive)
        except LineClosed as closed:
            status = STATUS_OF.get(closed.code, HELLO_AGAIN_STATUS)
            raise PollRefused(status, str(closed)) from closed
        finally:
            self._hub.lines.remove(line)
        return PollAnswer(opened.epoch, poll.messages)


class _Poll:
    """The transport of one poll: gathers what the site sends."""

    def __init__(self) -> None:
        self.messages: list[Raw] = []
        self._news = asyncio.Event()

    async def send(self, data: bytes) -> None:
        self.messages.append(Raw(data))
        self._news.set()

    def end(self, _code: int) -> None:
        self._news.set()

    async def wait(self, wait_s: float, receive: Receive) -> None:
        """Until there is a message, or the device has gone, for at most ``wait_s``."""
        waits = {asyncio.ensure_future(self._news.wait()), asyncio.ensure_future(receive())}
        try:
            await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise MessageError("the message was cut")
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > MAX_POLL_BYTES:
            raise PollRefused(413, TOO_LARGE)
        if not event.get("more_body"):
            return b"".join(parts)


def _opened(token: str, request: PollRequest, may_open: Callable[[int], bool]) -> OpenedLine:
    try:
        if request.line:
            opened = continue_line(token, request.line, request.boot_id)
        else:
            opened = open_line(token, may_open, LineChannel.POLL)
    except TooManyLines:
        raise PollRefused(TOO_MANY_LINES.status, TOO_MANY_LINES.detail) from None
    if opened is not None:
        return opened
    if request.line and is_valid(token):
        raise PollRefused(HELLO_AGAIN_STATUS, ANOTHER_LINE)
    raise PollRefused(NO_CREDENTIAL.status, NO_CREDENTIAL.detail)
