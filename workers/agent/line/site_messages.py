"""Reads the site's messages of one line: answers, acknowledgements and frames."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable

from fedcore.formats.line_bodies import (
    HELLO_ANSWER,
    REFUSAL,
    DownBody,
    DownKind,
    read_down,
)
from fedcore.formats.line_messages import Message, MessageError, decode, read
from workers.agent.agent_errors import UnknownKey
from workers.agent.line.contract import Ending, LineEnded, LineParts
from workers.agent.line.opening import UPDATE_RETRY_S
from workers.agent.line.unacknowledged import Frame

log = logging.getLogger(__name__)

Taken = Callable[[DownKind, DownBody], None]


class SiteMessages:
    """``hello``: whether frame 1 of this device is its hello. ``taken``: called for each frame."""

    def __init__(self, parts: LineParts, hello: bool, taken: Taken | None = None) -> None:
        self._parts, self._hello, self._taken = parts, hello, taken
        self.last_n = 0  # of the site's frames
        self.are_greeted = not hello

    def read(self, data: bytes) -> None:
        """Act on one message. Raises LineEnded."""
        try:
            self._process(decode(data))
        except MessageError as error:
            raise LineEnded(f"this agent cannot read a message of the site: {error}") from error
        except UnknownKey as error:
            raise LineEnded(str(error)) from error
        except (OSError, sqlite3.Error) as error:
            raise LineEnded(f"this device could not store a message: {error}") from error

    def _process(self, message: Message) -> None:
        """An answer comes before the acknowledgement that may be in the same message."""
        frames = self._parts.frames
        if message.re == 1 and self._hello:
            if not message.succeeded:
                detail = read(message.body, REFUSAL).detail
                after_s = UPDATE_RETRY_S if message.status == 426 else 0.0
                raise LineEnded(detail, after_s, Ending.REFUSED)
            answer = read(message.body, HELLO_ANSWER)
            self.are_greeted = True
            self._parts.greeted(answer)
        elif message.re is not None:
            self._count_round_trip(frames.answered(message))
        if message.ack is not None:
            for frame in frames.acknowledged(message.ack):
                self._count_round_trip(frame)
        if message.n is not None:
            self._take(message, message.n)

    def _count_round_trip(self, frame: Frame | None) -> None:
        if frame is not None:
            self._parts.traffic.answered(time.monotonic() - frame.sent_at)

    def _take(self, message: Message, n: int) -> None:
        """Hand a frame of the site to the device."""
        if n != self.last_n + 1:
            raise LineEnded(f"the site's frame {n} came after frame {self.last_n}")
        self.last_n = n
        try:
            body = read_down(message.kind, message.body)
        except MessageError as error:  # it would have no effect the next time either
            log.warning("the site sent a wrong %s: %s", message.kind[:40], error)
            return
        if body is not None:  # a later version may have added a kind
            self._parts.handlers.received(DownKind(message.kind), body)
            if self._taken is not None:
                self._taken(DownKind(message.kind), body)
