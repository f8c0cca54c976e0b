"""A device's line to the site, which is opened again whenever it ends.

It is one WebSocket, or a long poll where something on the way lets no WebSocket through. Frames
that the site has not acknowledged are kept in memory and sent again on the next line. A WebSocket
costs one task and one timer, so that a process may hold thousands.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from msgspec import Raw

from fedcore.errors import ServerUnavailable
from fedcore.formats.line_bodies import HELLO, HelloAnswer, UpKind
from fedcore.formats.line_messages import Message, body_of
from workers.agent.agent_errors import Busy, Obstructed, Revoked
from workers.agent.http.byte_counts import Traffic
from workers.agent.line.backoff import LineBackoff
from workers.agent.line.channel_choice import SHORT_S, Channel, ChannelChoice
from workers.agent.line.contract import (
    Ending,
    LineEnded,
    LineHandlers,
    LineOptions,
    LineParts,
    OpenLine,
)
from workers.agent.line.opening import LineConnection, LineSite, open_line
from workers.agent.line.poll_channel import PollChannel, Upgraded
from workers.agent.line.revocation import Revocation
from workers.agent.line.unacknowledged import Unacknowledged
from workers.agent.line.websocket_channel import WebSocketChannel

__all__ = ["Line", "LineHandlers", "LineOptions"]

OBSTRUCTED = frozenset({Ending.CUT, Ending.HELD, Ending.SILENT})


class Line:
    """Use it in one event loop: ``run`` keeps it open, ``call`` sends a frame.

    ``channel`` is how it came, None while it is down.
    """

    def __init__(
        self,
        site: LineSite,
        hello: Raw,
        handlers: LineHandlers,
        options: LineOptions | None = None,
    ) -> None:
        self._site, self._handlers, self._options = site, handlers, options or LineOptions()
        self._frames = Unacknowledged()
        self._backoff = LineBackoff()
        self._choice = ChannelChoice(self._options.websocket_retry_s)
        self._revocation = Revocation(self._options.confirm_s)
        self._open: OpenLine | None = None
        self._stopping = False
        self.traffic = Traffic()
        self.channel: Channel | None = None
        self.connected_since: float | None = None  # seconds since 1970; None while down
        self.down_since = time.monotonic()
        self.problem = "not connected yet"
        self._parts = LineParts(
            hello,
            HELLO.decode(hello).boot_id,
            self._frames,
            handlers,
            self._options,
            self.traffic,
            self._greeted,
        )

    @property
    def is_connected(self) -> bool:
        return self.connected_since is not None

    async def call(self, kind: UpKind, body: Any) -> Message:
        """Send a frame; returns the site's answer, or one without a body for an acknowledgement.

        Waits over as many lines as it takes. Raises MessageError for a body that is too large.
        """
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        raw = body if isinstance(body, Raw) else body_of(body)
        frame = self._frames.add(kind.value, raw, answer)
        if self._open is not None:
            self._open.send_frame(frame)
        try:
            return await answer
        finally:
            self._frames.forget(frame)

    async def run(self) -> None:
        """Keep the line open until ``stop``, or until cancelled. Raises Revoked."""
        while not self._stopping:
            await asyncio.sleep(await self._one_line())

    async def stop(self) -> None:
        """Close the line for good; the site learns of it at once."""
        self._stopping = True
        if self._open is not None:
            await self._open.close()

    async def _one_line(self) -> float:
        """Open a line and hold it until it ends; returns the seconds until the next one."""
        try:
            if not self._choice.websocket_in_s:
                wait_s = await self._websocket()
                if not self._choice.polls or self._stopping:
                    return wait_s
            channel = PollChannel(self._parts, self._site, self._choice)
            wait_s, end = await self._held(channel)
            if isinstance(end, Upgraded):
                return await self._hold_websocket(end.connection)
            self._choice.poll_failed()
            return wait_s
        except Revoked as error:
            wait_s = self._revocation.hear(error)
            self._note_problem(f"{error}; the site is asked again in {wait_s:.0f} s")
            return wait_s

    async def _websocket(self) -> float:
        try:
            connection = await open_line(self._site)
        except ServerUnavailable as error:
            self._note_problem(str(error))
            if isinstance(error, Obstructed):
                self._choice.obstructed(error.certain)
            after_s = error.after_s if isinstance(error, Busy) else 0.0
            return max(self._backoff.after_refusal(), after_s)
        return await self._hold_websocket(connection)

    async def _hold_websocket(self, connection: LineConnection) -> float:
        began = time.monotonic()
        wait_s, end = await self._held(WebSocketChannel(self._parts, connection))
        is_short = end.ending is Ending.SILENT or time.monotonic() - began < SHORT_S
        if not is_short:
            self._choice.healthy()
        elif end.ending in OBSTRUCTED and not self._stopping:
            self._choice.obstructed(certain=False)
        return wait_s

    async def _held(self, channel: OpenLine) -> tuple[float, LineEnded]:
        """Hold a line until it ends; returns the seconds until the next one, and why it ended."""
        began = time.monotonic()
        self._open = channel
        try:
            end = await channel.hold()
        finally:
            greeted = self.is_connected
            self._open, self.channel = None, None
            self.connected_since, self.down_since = None, time.monotonic()
        if not isinstance(end, Upgraded):
            self._note_problem(str(end))
        if greeted and end.ending is not Ending.REFUSED:
            wait_s = self._backoff.after_cut(time.monotonic() - began)
        else:
            wait_s = self._backoff.after_refusal()
        return max(wait_s, end.after_s), end

    def _greeted(self, answer: HelloAnswer) -> None:
        assert self._open is not None
        self.connected_since, self.problem = time.time(), ""
        self.channel = self._open.kind
        self._revocation.disproved()
        self._handlers.greeted(answer)
        self._handlers.connection_changed(self)

    def _note_problem(self, text: str) -> None:
        self.problem = text
        if not self._stopping:
            self._handlers.connection_changed(self)
