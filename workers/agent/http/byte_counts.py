"""What one process sent and received, counted at its sockets, and how long an answer takes."""

from __future__ import annotations

from collections import deque

REMEMBERED = 20  # small calls, of which the quickest says most of the way; and bodies


class Traffic:
    """Running totals in bytes, with HTTP's heads and what TLS adds; without TCP's own headers.

    ``again``: those of them that were sent or received before, and lost by a cut.
    """

    def __init__(self) -> None:
        self.up = 0
        self.down = 0
        self.again = 0
        self._trips: deque[float] = deque(maxlen=REMEMBERED)
        self._furthest: dict[str, int] = {}

    def moved(self, name: str, begin: int, count: int) -> None:
        """Bytes of the body ``name``, from ``begin`` on; how far it came is kept over a cut."""
        furthest, end = self._furthest.pop(name, 0), begin + count
        self.again += max(0, min(end, furthest) - begin)
        self._furthest[name] = max(furthest, end)
        if len(self._furthest) > REMEMBERED:
            del self._furthest[next(iter(self._furthest))]

    def is_whole(self, name: str) -> None:
        """The body arrived: should it be fetched anew some day, nothing was lost."""
        self._furthest.pop(name, None)

    def answered(self, seconds: float) -> None:
        """A small call took so long on an open connection, from its first byte to its answer."""
        if seconds > 0:
            self._trips.append(seconds)

    @property
    def rtt_s(self) -> float | None:
        """The quickest of the last small calls; the server's shortest answer time is in it."""
        return min(self._trips, default=None)


class Counted:
    """What passed since this was made."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._before = (traffic.up, traffic.down, traffic.again)

    def values(self) -> dict[str, float]:
        """Named as a report and a sample name them."""
        traffic = self._traffic
        up, down, again = self._before
        found: dict[str, float] = {
            "net_up_bytes": traffic.up - up,
            "net_down_bytes": traffic.down - down,
            "retransfer_bytes": traffic.again - again,
        }
        if traffic.rtt_s is not None:
            found["rtt_s"] = traffic.rtt_s
        return found
