"""A device's line as a WebSocket."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import NoReturn

from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from fedcore.formats.line_bodies import UpKind
from fedcore.formats.line_messages import (
    MALFORMED,
    REPLACED,
    REVOKED,
    TOO_MUCH,
    Message,
    body_of,
    encode,
)
from workers.agent.http.throttle import DOWN, UP
from workers.agent.line.channel_choice import Channel
from workers.agent.line.contract import Ending, LineEnded, LineParts
from workers.agent.line.opening import LineConnection
from workers.agent.line.site_messages import SiteMessages
from workers.agent.line.unacknowledged import Frame

PROBLEMS = {
    REPLACED: "another agent uses this device's credential",
    MALFORMED: "the site could not read a message of this agent",
    TOO_MUCH: "the site receives too much from this device",
}
# No proof: the next upgrade is answered with a verdict.
SAID_REVOKED = "the site ended the line because this device was revoked; asking it"


class WebSocketChannel:
    """Its one timer ends a line that brings nothing."""

    kind = Channel.WEBSOCKET

    def __init__(self, parts: LineParts, connection: LineConnection) -> None:
        self._parts, self._connection = parts, connection
        self._messages = SiteMessages(parts, hello=True)
        self._began = connection.loop.time()
        self._silence: asyncio.TimerHandle | None = None
        self._ending = Ending.CUT  # unless it is closed with a code
        self._acknowledged = 0
        self._ack_due = False
        self._last_way = ""

    async def hold(self) -> LineEnded:
        try:
            await self._exchange()
        except LineEnded as end:
            return end
        except ConnectionClosed:
            return self._why_closed()
        finally:
            if self._silence is not None:
                self._silence.cancel()
            self._connection.transport.abort()

    async def close(self) -> None:
        await self._connection.close(CloseCode.GOING_AWAY)

    async def _exchange(self) -> NoReturn:
        self._watch_silence()
        self._send(Message(n=1, kind=UpKind.HELLO.value, body=self._parts.hello))
        for frame in self._parts.frames.renumber(first=2):
            self.send_frame(frame)
        link = self._parts.options.link
        while True:
            data = await self._connection.recv(decode=False)
            if link is not None:
                arrived = link.reserve(DOWN, len(data), self._turned(DOWN))
                await asyncio.sleep(arrived - time.monotonic())
            self._messages.read(data)
            if self._messages.last_n > self._acknowledged and not self._ack_due:
                self._ack_due = True
                self._connection.loop.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        """One acknowledgement for all frames that came together."""
        self._ack_due = False
        self._acknowledged = self._messages.last_n
        self._send(Message(ack=self._acknowledged))

    def _watch_silence(self) -> None:
        """End a line that has brought nothing, not even a ping, or no answer to its hello."""
        options, connection = self._parts.options, self._connection
        now, last = connection.loop.time(), connection.heard_at
        held_s = self._began + options.hello_s - now
        left_s = last + options.silent_s - now
        if not self._messages.are_greeted:
            if held_s <= 0:
                self._abort(Ending.HELD)
                return
            left_s = min(left_s, held_s)
        if left_s <= 0:
            self._abort(Ending.SILENT)
            return
        self._silence = connection.loop.call_later(left_s, self._watch_silence)

    def _abort(self, ending: Ending) -> None:
        self._ending = ending
        self._connection.transport.abort()

    def _why_closed(self) -> LineEnded:
        code, reason = self._connection.close_code, self._connection.close_reason or ""
        if code in (None, CloseCode.ABNORMAL_CLOSURE):
            options = self._parts.options
            texts = {
                Ending.HELD: f"the site did not answer within {options.hello_s:.0f} s; something "
                "between this device and the site may hold messages back",
                Ending.SILENT: f"nothing came from the site for {options.silent_s:.0f} s",
            }
            return LineEnded(texts.get(self._ending, "the line was cut"), ending=self._ending)
        if code == MALFORMED:
            detail = body_of({"detail": reason or PROBLEMS[MALFORMED]})
            self._parts.frames.reject_oldest(Message(re=1, status=400, body=detail))
        if code == REVOKED:
            return LineEnded(SAID_REVOKED)
        words = PROBLEMS.get(code or 0, "the site closed the line")
        ending = Ending.REFUSED if code in PROBLEMS else Ending.CLOSED
        return LineEnded(f"{words} ({reason})" if reason else words, ending=ending)

    def send_frame(self, frame: Frame) -> None:
        frame.sent_at = time.monotonic()
        self._send(frame.message)

    def _send(self, message: Message) -> None:
        connection, data, link = self._connection, encode(message), self._parts.options.link
        if link is None:
            broadcast((connection,), data, text=True)
            return
        arrives = link.reserve(UP, len(data), self._turned(UP))
        send = partial(broadcast, (connection,), data, text=True)
        connection.loop.call_later(arrives - time.monotonic(), send)

    def _turned(self, way: str) -> bool:
        turned, self._last_way = way != self._last_way, way
        return turned
