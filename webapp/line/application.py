"""The ASGI application of the devices' WebSocket (``fedcore.formats.line_messages.PATH``)."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from django.db import DatabaseError

from fedcore.formats.line_messages import PATH, SUBPROTOCOL, agreed_version, is_newer
from webapp.devices.ability import AGENT_TOO_NEW, AGENT_TOO_OLD
from webapp.devices.device_messages import announce_line
from webapp.line.closing import CLOSE_REASONS, LineClosed
from webapp.line.frames import LATER
from webapp.line.hub import Hub
from webapp.line.line import DeviceLine
from webapp.line.opening import (
    OpenedLine,
    TooManyLines,
    close_line,
    note_refused_agent,
    open_line,
    token_of,
)
from webapp.transfer.asgi_tools import App, Receive, Scope, Send, header, problem_body

log = logging.getLogger(__name__)

GONE = 1006  # the connection broke
GOING_AWAY = 1012  # uvicorn's close code when it stops
END_S = 5.0  # a device that does not read is not waited for longer


@dataclass(frozen=True)
class UpgradeRefusal:
    """The HTTP answer to an upgrade request."""

    status: int
    detail: str


OUTDATED = UpgradeRefusal(
    426, "this site and this agent share no version of the protocol; update the older one"
)
NO_CREDENTIAL = UpgradeRefusal(
    401, "this credential is unknown or was revoked; enrol the device again"
)
TOO_MANY_LINES = UpgradeRefusal(429, "this device opens lines too often; wait a minute")


class DeviceLines:
    """Takes the devices' WebSockets; everything else goes to ``app``."""

    def __init__(self, app: App, hub: Hub) -> None:
        self._app = app
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].removeprefix(scope.get("root_path", "")) != PATH:
            await self._app(scope, receive, send)
            return
        self._hub.start()
        await receive()  # websocket.connect
        version = agreed_version(scope["subprotocols"])
        line = await self._admit(scope, version)
        if isinstance(line, UpgradeRefusal):
            await _refuse(receive, send, line)
            return
        code = GONE
        try:
            await send({"type": "websocket.accept", "subprotocol": f"{SUBPROTOCOL}{version}"})
            code = await self._serve(line, receive, send)
        except asyncio.CancelledError:
            code = GOING_AWAY
            raise
        except OSError as error:
            log.debug("device %d is gone: %s", line.device_id, error)
        finally:
            if code != GOING_AWAY:  # else the device is about to connect again
                try:
                    await self._hub.batches.run(partial(close_line, line.device_id, line.epoch))
                except DatabaseError as error:  # without a heartbeat it counts as offline soon
                    log.warning(
                        "device %d is not marked as disconnected: %s", line.device_id, error
                    )

    async def _admit(self, scope: Scope, version: int | None) -> OpenedLine | UpgradeRefusal:
        token = token_of(header(scope, b"authorization"))
        if version is None:
            refusal = AGENT_TOO_NEW if is_newer(scope["subprotocols"]) else AGENT_TOO_OLD
            with suppress(DatabaseError):  # the answer is the same
                await self._hub.batches.run(partial(note_refused_agent, token, refusal))
            return OUTDATED
        try:
            opened = await self._hub.batches.run(partial(open_line, token, self._hub.may_open))
        except TooManyLines:
            return TOO_MANY_LINES
        except DatabaseError as error:
            log.warning("a line waits: %s", error)
            return UpgradeRefusal(503, LATER)
        return opened or NO_CREDENTIAL

    async def _serve(self, opened: OpenedLine, receive: Receive, send: Send) -> int:
        """Serve the line until it ends; returns the close code."""
        task = asyncio.current_task()
        assert task is not None
        codes: list[int] = []

        def end(code: int) -> None:
            if not codes:  # a second cancellation would hit the closing itself
                codes.append(code)
                task.cancel()

        line = self._hub.line(opened, _WebSocket(send), end)
        try:
            code = await self._receive_all(line, receive)
            codes.append(code)
            return code
        except LineClosed as closed:
            codes.append(closed.code)
        except asyncio.CancelledError:
            if not codes:  # the server stops
                raise
            task.uncancel()
        finally:
            self._hub.lines.remove(line)
        reason = CLOSE_REASONS[codes[0]]
        close = {"type": "websocket.close", "code": codes[0], "reason": reason}
        await asyncio.wait_for(send(close), END_S)
        return codes[0]

    async def _receive_all(self, line: DeviceLine, receive: Receive) -> int:
        """Until the device disconnects; returns the close code."""
        greeted = False
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return int(event.get("code") or GONE)
            await line.receive(event.get("text") or event.get("bytes") or b"")
            if line.said_hello and not greeted:
                greeted = True
                announce_line(line.device_id, line.origin.epoch)
                await self._hub.delivery.send_open_offers(line.device_id)


class _WebSocket:
    """The transport of a line over ASGI."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, data: bytes) -> None:
        await self._send({"type": "websocket.send", "text": data.decode()})


async def _refuse(receive: Receive, send: Send, refusal: UpgradeRefusal) -> None:
    headers, body = problem_body(refusal.status, refusal.detail)
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    encoded.append((b"content-length", str(len(body)).encode()))
    start = {
        "type": "websocket.http.response.start",
        "status": refusal.status,
        "headers": encoded,
    }
    await send(start)
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
    # Uvicorn sends one disconnect with the response, and one when the connection is closed. It
    # logs an error about an application that returns in between.
    with suppress(asyncio.TimeoutError):
        for _ in range(2):
            await asyncio.wait_for(receive(), END_S)
