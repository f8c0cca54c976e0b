"""What the parts of a device's line share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from msgspec import Raw

from fedcore.formats.line_bodies import DownBody, DownKind, HelloAnswer
from fedcore.formats.line_messages import SILENT_S
from workers.agent.http.byte_counts import Traffic
from workers.agent.http.throttle import LinkThrottle
from workers.agent.line.channel_choice import RETRY_S, Channel
from workers.agent.line.revocation import CONFIRM_S
from workers.agent.line.unacknowledged import Frame, Unacknowledged

HELLO_S = 15.0


class LineState(Protocol):
    """``channel``: how the line came, None while it is down. ``problem``: why it is down."""

    connected_since: float | None
    problem: str
    channel: Channel | None


class LineHandlers(Protocol):
    """What a device does with the site's frames. A frame is acknowledged once this returns.

    An OSError or sqlite3.Error means that it could not be stored: the line ends, and the site
    sends the frame again. So it does after UnknownKey, and says more in its answer to the hello.
    """

    def greeted(self, answer: HelloAnswer) -> None: ...

    def received(self, kind: DownKind, body: DownBody) -> None: ...

    def connection_changed(self, line: LineState) -> None: ...


@dataclass(frozen=True)
class LineOptions:
    """Times in seconds. ``link``: emulated.

    ``silent_s``: a line that brings nothing for so long has ended. ``hello_s``: a hello that is
    not answered within this time was held back. ``websocket_retry_s``: while the device polls.
    ``confirm_s``: from the first to the second question after a revocation.
    """

    silent_s: float = SILENT_S
    link: LinkThrottle | None = None
    hello_s: float = HELLO_S
    websocket_retry_s: float = RETRY_S
    confirm_s: float = CONFIRM_S


@dataclass(frozen=True)
class LineParts:
    """What a channel works with. ``greeted`` is called once the site has answered the hello."""

    hello: Raw
    boot_id: str
    frames: Unacknowledged
    handlers: LineHandlers
    options: LineOptions
    traffic: Traffic
    greeted: Callable[[HelloAnswer], None]


class Ending(Enum):
    """How a line ended."""

    CLOSED = "closed"  # by the site or by this device, who will open another one
    REFUSED = "refused"  # by the site, for a reason that lasts
    HELD = "held"  # the hello was not answered
    SILENT = "silent"  # nothing came for too long
    CUT = "cut"  # without a closing word


class LineEnded(Exception):
    """The line cannot go on; the text says why. ``after_s``: not again before."""

    def __init__(self, reason: str, after_s: float = 0.0, ending: Ending = Ending.CLOSED) -> None:
        super().__init__(reason)
        self.after_s, self.ending = after_s, ending


class OpenLine(Protocol):
    """A WebSocket or a long poll, from its hello to its end."""

    kind: Channel

    async def hold(self) -> LineEnded:
        """Exchange messages until the line ends; returns why. Raises Revoked."""

    def send_frame(self, frame: Frame) -> None: ...

    async def close(self) -> None:
        """The agent stops."""
