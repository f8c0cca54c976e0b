"""One open line: it reads a device's messages in order, and sends the site's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from django.db import DatabaseError

from fedcore.formats.line_bodies import DownBody, Hello, UpKind, read_up
from fedcore.formats.line_messages import (
    HELLO_AGAIN,
    MALFORMED,
    TOO_MUCH,
    Message,
    MessageError,
    body_of,
    decode,
    encode,
)
from webapp.line.batches import Batches
from webapp.line.calls import Origin
from webapp.line.closing import LineClosed
from webapp.line.frames import LATER, refusal
from webapp.line.limits import FrameLimit
from webapp.line.opening import OpenedLine

log = logging.getLogger(__name__)

MAX_PUSHING = 32  # frames that wait for a device to read
PUSH_TIMEOUT_S = 20.0


EndLine = Callable[[int], None]  # closes the connection, with a close code


class MessageSender(Protocol):
    """What carries messages: a WebSocket, or one long poll."""

    async def send(self, data: bytes) -> None: ...


class DeviceLine:
    """A device's line in this process. ``end`` has its connection closed with a close code."""

    def __init__(
        self,
        opened: OpenedLine,
        transport: MessageSender,
        batches: Batches,
        limit: FrameLimit,
        end: EndLine,
    ) -> None:
        self.device_id = opened.device_id
        self.origin = Origin(opened.device_id, opened.epoch, opened.boot_id)
        self.end = end
        self._received = 0  # frames of the device
        self._sent = 0  # frames of the site
        self._pushing = 0
        self._transport = transport
        self._batches = batches
        self._limit = limit

    @property
    def said_hello(self) -> bool:
        return bool(self.origin.boot_id)

    async def receive(self, data: bytes | str) -> None:
        """Handle one message of the device. Raises LineClosed where the line must end."""
        await self._limit.spend(len(data))
        try:
            message = decode(data)
        except MessageError as error:
            log.info("device %d sent no message: %s", self.device_id, error)
            raise LineClosed(MALFORMED) from None
        if message.n is None:
            return  # an acknowledgement: the database knows what is still open
        if message.n != self._received + 1:
            raise LineClosed(MALFORMED)
        if not self.said_hello and message.kind != UpKind.HELLO.value:
            raise LineClosed(HELLO_AGAIN)
        try:
            answer = await self._batches.apply(self.origin, message)
        except DatabaseError as error:
            log.warning("a frame of device %d waits: %s", self.device_id, error)
            answer = refusal(message.n, 503, LATER)
        if message.kind == UpKind.HELLO.value and answer.succeeded:
            hello = read_up(message.kind, message.body)
            assert isinstance(hello, Hello)
            self.origin = replace(self.origin, boot_id=hello.boot_id)
        self._received = message.n
        try:
            data = encode(answer)
        except MessageError as error:
            data = encode(refusal(answer.re, 413, str(error)))
        await self._transport.send(data)

    async def push(self, kind: str, body: DownBody) -> None:
        """Send a frame to the device. One that does not read is cut."""
        self._sent += 1
        self._pushing += 1
        data = encode(Message(n=self._sent, kind=kind, body=body_of(body)))
        wait_s = PUSH_TIMEOUT_S if self._pushing <= MAX_PUSHING else 0.0
        timer = asyncio.get_running_loop().call_later(wait_s, self.end, TOO_MUCH)
        try:
            await self._transport.send(data)
        except OSError:  # the device is gone
            log.debug("a frame did not reach device %d", self.device_id)
        finally:
            timer.cancel()
            self._pushing -= 1
