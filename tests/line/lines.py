"""Lines without a socket: what the site says to frames, and how it ends a line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import connections

from fedcore.formats.line_messages import Message, body_of, decode, encode
from tests.conftest import Enrolled
from webapp.line.batches import THREADS, Batches
from webapp.line.closing import LineClosed
from webapp.line.limits import FrameLimit
from webapp.line.line import DeviceLine
from webapp.line.opening import OpenedLine, open_line

BOOT = "boot-1"


@dataclass
class Device:
    """The other end of a line: what reached it, and the code with which the site ended it."""

    sent: list[Message] = field(default_factory=list)
    code: int = 0
    reads: asyncio.Event | None = None  # the site waits for it before each message

    async def send(self, data: bytes) -> None:
        if self.reads is not None:
            await self.reads.wait()
        self.sent.append(decode(data))

    def end(self, code: int) -> None:
        self.code = self.code or code

    def line(self, opened: OpenedLine, batches: Batches) -> DeviceLine:
        return DeviceLine(opened, self, batches, FrameLimit(), self.end)

    @property
    def frames(self) -> list[tuple[str, int | None]]:
        return [(message.kind, message.n) for message in self.sent if message.kind]


def frame(number: int, kind: str, body: Mapping[str, Any] | None = None) -> bytes:
    return encode(Message(n=number, kind=kind, body=body_of(dict(body or {}))))


def hello(number: int = 1, boot_id: str = BOOT, **body: Any) -> bytes:
    return frame(number, "hello", {"boot_id": boot_id, **body})


def opened_by(pi: Enrolled) -> OpenedLine:
    opened = open_line(pi.api_token)
    assert opened is not None
    return opened


def on_line(opened: OpenedLine, *messages: bytes) -> tuple[list[Message], int]:
    """What a line answers to messages, and the code with which it ends or 0."""
    device = Device()

    async def run(batches: Batches) -> None:
        line = device.line(opened, batches)
        try:
            for message in messages:
                await line.receive(message)
        except LineClosed as closed:
            device.end(closed.code)

    with_batches(run)
    return device.sent, device.code


async def close_connections(batches: Batches) -> None:
    """Close those of all threads: each takes one call, and waits for the others."""
    together = threading.Barrier(THREADS)

    def close() -> None:
        together.wait(30)
        connections.close_all()

    await asyncio.gather(*(batches.run(close) for _ in range(THREADS)))


def with_batches(run: Callable[[Batches], Any]) -> None:
    """Run a coroutine function, and close the database connections that its threads opened."""

    async def main() -> None:
        batches = Batches()
        try:
            await run(batches)
        finally:
            await close_connections(batches)

    asyncio.run(main())
