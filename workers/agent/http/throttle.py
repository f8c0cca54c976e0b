"""Emulates a link: this device's transfers take as long as they would over it.

Each direction is a leaky bucket: a chunk is carried when its last byte would have arrived. A
change of direction costs half of the link's delay, a new connection all of it. Lost packets are
sent twice, so loss lowers the rate; no bytes are really lost.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from pathlib import Path

from fedcore.hardware.links import Link

UP, DOWN = "up", "down"
SLICE_S = 0.02  # of the link's time that one chunk takes
SMALLEST_BYTES = 1460  # an Ethernet packet
TICK_S = 0.1
OFFSETS = {UP: 0, DOWN: 8}
STATE_BYTES = 16


class LinkThrottle:
    """Shared by all connections, by forked processes, and by all that name the same file."""

    def __init__(
        self,
        link: Link,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        shared_file: Path | None = None,
    ) -> None:
        self.name = link.name
        self._delay_s = link.delay_s
        self._rates = {UP: link.up_bps * (1 - link.loss), DOWN: link.down_bps * (1 - link.loss)}
        self._clock, self._sleep = clock, sleep
        # Since when each direction is free. If two processes write at once, one chunk counts less.
        if shared_file is None:
            self._free = mmap.mmap(-1, STATE_BYTES)
        else:
            with shared_file.open("a+b") as file:
                file.truncate(STATE_BYTES)
                self._free = mmap.mmap(file.fileno(), STATE_BYTES)

    def chunk_size(self, direction: str, count: int) -> int:
        """How many of ``count`` bytes to carry at once."""
        return int(min(count, max(SMALLEST_BYTES, self._rates[direction] * SLICE_S)))

    def carry(self, direction: str, count: int, turned: bool, check: Callable[[], None]) -> None:
        """Return when the last of these bytes has arrived; ``check`` may raise meanwhile."""
        self._sleep_until(self.reserve(direction, count, turned), check)

    def reserve(self, direction: str, count: int, turned: bool) -> float:
        """Occupy the link; returns when (of the clock) the last of these bytes has arrived.

        ``turned``: bytes last moved in the other direction.
        """
        now = self._clock()
        (free,) = struct.unpack_from("d", self._free, OFFSETS[direction])
        if turned:
            begin = max(free, now + self._delay_s / 2)
        else:  # after a short stall the socket's buffer keeps the link busy
            begin = free if now - free < SLICE_S else now
        end: float = begin + count / self._rates[direction]
        struct.pack_into("d", self._free, OFFSETS[direction], end)
        return end

    def connect(self, check: Callable[[], None]) -> None:
        self._sleep_until(self._clock() + self._delay_s, check)

    def _sleep_until(self, end: float, check: Callable[[], None]) -> None:
        while (remaining_s := end - self._clock()) > 0:
            check()
            self._sleep(min(TICK_S, remaining_s))
