"""The socket over which the agent's other processes use the line of the main process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import msgspec

from fedcore.errors import ServerRefused, ServerUnavailable
from fedcore.formats.line_bodies import Accept, UpKind
from fedcore.formats.line_messages import body_of
from workers.agent.http.server_api import TRY_LATER
from workers.agent.line.device_line import Line
from workers.agent.line.local_messages import (
    LIMIT_BYTES,
    REQUEST,
    LocalKind,
    Reply,
    Request,
    StartAnswer,
    line_of,
)
from workers.agent.line.offers import Offers
from workers.agent.line.site_call import call_site

ACCEPT = msgspec.json.Decoder(Accept)

log = logging.getLogger(__name__)


class LocalServer:
    """Only the owner of the socket's folder can connect."""

    def __init__(self, line: Line, offers: Offers, start: StartAnswer) -> None:
        self._line, self._offers, self._start = line, offers, start
        self._server: asyncio.AbstractServer | None = None
        self._worker: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self.worker_attached = asyncio.Event()

    async def open(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._serve, path, limit=LIMIT_BYTES)

    async def close(self) -> None:
        """End all connections, and accept no more."""
        if self._server is not None:
            self._server.close()
        for writer in self._connections:
            writer.transport.abort()
        await asyncio.gather(*self._connections.values())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving: Any = asyncio.current_task()
        self._connections[writer] = serving
        try:
            while data := await reader.readline():
                self._handle(REQUEST.decode(data), writer)
        except ConnectionError:
            log.debug("a process of this agent was killed")
        except ValueError as error:
            log.warning("a process of this agent sent what is no request: %s", error)
        finally:
            del self._connections[writer]
            if writer is self._worker:
                self._worker = None
                self.worker_attached.clear()
                self._offers.detach()
            writer.close()

    def _handle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.kind == LocalKind.OFFERS:
            self._worker = writer
            self._offers.attach(lambda push: writer.write(line_of(push)))
            self.worker_attached.set()
        elif request.kind == LocalKind.FINISHED:
            self._offers.finished(request.tag)
        elif request.kind == LocalKind.AGAIN:
            self._offers.again(request.tag)
        elif request.kind == LocalKind.START:
            writer.write(line_of(Reply(request.id, body=body_of(self._start))))
        else:
            task = asyncio.create_task(self._answer(request, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Pass a frame on, also where its process has ended meanwhile."""
        try:
            message = await call_site(self._line, UpKind(request.kind), request.body)
            reply = Reply(request.id, message.status, message.body)
        except ServerUnavailable as error:
            reply = Reply(request.id, 503, _detail(error))
        except ServerRefused as error:
            reply = Reply(request.id, error.status or 400, _detail(error))
        if request.kind == UpKind.ACCEPT and reply.status not in TRY_LATER:
            self._offers.accepted(str(ACCEPT.decode(request.body).assignment))
        with contextlib.suppress(OSError):
            writer.write(line_of(reply))


def _detail(error: Exception) -> Any:
    return body_of({"detail": str(error)})
