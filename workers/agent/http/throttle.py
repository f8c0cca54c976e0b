"""An emulated link: this device's own transfers take as long as they would over it.

Each way is a bucket that bytes drip from: a piece is carried when its last byte would have
arrived. Half of the link's delay is waited wherever the direction turns, all of it to connect.
Packets that a link loses are sent twice, so its rate is that much lower; nothing is really lost.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable

from fedcore.hardware.links import Link

UP, DOWN = "up", "down"
SLICE_S = 0.02  # of the link's time that one piece takes
SMALLEST = 1460  # bytes: a packet of Ethernet
TICK_S = 0.1
OFFSETS = {UP: 0, DOWN: 8}


class LinkThrottle:
    """Shared by all connections, and by the processes that are forked after it was made."""

    def __init__(
        self,
        link: Link,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = link.name
        self._delay_s = link.delay_s
        self._rates = {UP: link.up_bps * (1 - link.loss), DOWN: link.down_bps * (1 - link.loss)}
        self._clock, self._sleep = clock, sleep
        # Since when each way is free. Two processes may write at once: one piece then counts less.
        self._free = mmap.mmap(-1, 16)

    def most(self, way: str, count: int) -> int:
        """How many of ``count`` bytes to carry at once."""
        return int(min(count, max(SMALLEST, self._rates[way] * SLICE_S)))

    def carry(self, way: str, count: int, turned: bool, check: Callable[[], None]) -> None:
        """Return when the last of these bytes has arrived; ``check`` may raise meanwhile."""
        now = self._clock()
        (free,) = struct.unpack_from("d", self._free, OFFSETS[way])
        if turned:
            begin = max(free, now + self._delay_s / 2)
        else:  # a sender that was held up for a moment has its socket's buffer to go on with
            begin = free if now - free < SLICE_S else now
        end = begin + count / self._rates[way]
        struct.pack_into("d", self._free, OFFSETS[way], end)
        self._until(end, check)

    def connect(self, check: Callable[[], None]) -> None:
        self._until(self._clock() + self._delay_s, check)

    def _until(self, end: float, check: Callable[[], None]) -> None:
        while (left_s := end - self._clock()) > 0:
            check()
            self._sleep(min(TICK_S, left_s))
