"""Whether a device's line is a WebSocket or a long poll."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

OBSTACLES = 3  # in a row
SHORT_S = 60.0  # a WebSocket that ends sooner was perhaps cut by something on the way
RETRY_S = 600.0  # from one try of a WebSocket to the next while the device polls


class Channel(str, Enum):
    WEBSOCKET = "websocket"
    POLL = "poll"


class ChannelChoice:
    """A WebSocket, until something on the way lets none through."""

    def __init__(
        self, retry_s: float = RETRY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retry_s, self._clock = retry_s, clock
        self._obstacles = 0
        self._retry_at = 0.0

    @property
    def polls(self) -> bool:
        """Whether the device polls while it has no WebSocket."""
        return self._obstacles >= OBSTACLES

    @property
    def websocket_in_s(self) -> float:
        """Seconds until a WebSocket is due; 0 where it is due now."""
        return max(0.0, self._retry_at - self._clock()) if self.polls else 0.0

    def obstructed(self, certain: bool) -> None:
        """A WebSocket did not open, was held back or cut. ``certain``: the next will be too."""
        self._obstacles += OBSTACLES if certain else 1
        self.postpone()

    def postpone(self) -> None:
        """A WebSocket was tried."""
        self._retry_at = self._clock() + self._retry_s

    def healthy(self) -> None:
        """A WebSocket came through and lasted."""
        self._obstacles = 0

    def poll_failed(self) -> None:
        """The network may be another one by now."""
        self._retry_at = 0.0
