"""Upload bodies, moved to a partial upload from the socket or from ASGI messages."""

from __future__ import annotations

import asyncio
from typing import Protocol

from webapp.jobs.artefacts.partial_uploads import PartialUpload
from webapp.transfer.asgi_tools import Receive, run_in_thread
from webapp.transfer.socket_body import MIN_BYTES, SocketReader, uvicorn_cycle

BATCH_BYTES = 2**20  # written and hashed at once


class ClientDisconnected(Exception):
    """The client has closed the connection."""


class RequestBody(Protocol):
    """A request's body. ``keeps_open``: the connection can serve another request afterwards."""

    keeps_open: bool

    @property
    def is_read(self) -> bool:
        """Whether all of it was read."""

    async def move(self, part: PartialUpload | None, within_s: float) -> int:
        """Write what has arrived to ``part``, or drop it; returns the bytes moved, 0 on timeout.

        Raises ClientDisconnected.
        """

    async def settle(self) -> None:
        """Wait until all moved bytes are written; raises what the writing raised."""

    def close(self) -> None:
        """Release the body."""


def body_of(receive: Receive, length: int | None) -> RequestBody:
    """``length``: Content-Length in bytes, if the request has one."""
    cycle = uvicorn_cycle(receive) if length is not None and length >= MIN_BYTES else None
    if cycle is None or length is None or cycle.waiting_for_100_continue:
        return MessageBody(receive)
    return SocketBody(SocketReader(cycle, length))


class SocketBody:
    """Read from the socket, hashed and written in one thread, with one buffer."""

    keeps_open = False

    def __init__(self, incoming: SocketReader) -> None:
        self._incoming = incoming

    @property
    def is_read(self) -> bool:
        return self._incoming.is_read

    async def move(self, part: PartialUpload | None, within_s: float) -> int:
        if self._incoming.is_cut:
            raise ClientDisconnected
        return await self._incoming.move(part.append if part else _drop, within_s)

    async def settle(self) -> None:
        """Every move has been written already."""

    def close(self) -> None:
        self._incoming.close()


class MessageBody:
    """Read from ASGI messages, which are hashed and written while the next ones arrive."""

    keeps_open = True

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._waiting: list[bytes] = []
        self._part: PartialUpload | None = None
        self._writing: asyncio.Future[None] | None = None
        self.is_read = False

    async def move(self, part: PartialUpload | None, within_s: float) -> int:
        try:
            message = await asyncio.wait_for(self._receive(), within_s)
        except asyncio.TimeoutError:
            return 0
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self.is_read = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        if part is not None:
            self._part = part
            self._waiting.append(body)
            if self.is_read or sum(map(len, self._waiting)) >= BATCH_BYTES:
                await self._write()
        return len(body)

    async def _write(self) -> None:
        if self._writing:
            await self._writing
        if self._part is not None and self._waiting:
            pieces, self._waiting = self._waiting, []
            self._writing = asyncio.ensure_future(run_in_thread(self._part.append, *pieces))

    async def settle(self) -> None:
        await self._write()
        if self._writing:
            await self._writing

    def close(self) -> None:
        """There is nothing to release."""


def _drop(_piece: memoryview) -> None:
    """Drops the bytes."""
