"""Bytes that this process sent and received, counted at its sockets, and round-trip times."""

from __future__ import annotations

from collections import deque

HISTORY = 20  # small calls, whose fastest approximates the round trip; and partial bodies


class Traffic:
    """Running totals in bytes, HTTP headers and TLS included, TCP headers not.

    ``again``: the bytes among them that were sent or received before and lost by a cut.
    """

    def __init__(self) -> None:
        self.up = 0
        self.down = 0
        self.again = 0
        self._round_trips: deque[float] = deque(maxlen=HISTORY)
        self._furthest: dict[str, int] = {}

    def moved(self, name: str, begin: int, count: int) -> None:
        """Count bytes of the body ``name`` from offset ``begin``; its progress survives a cut."""
        furthest, end = self._furthest.pop(name, 0), begin + count
        self.again += max(0, min(end, furthest) - begin)
        self._furthest[name] = max(furthest, end)
        if len(self._furthest) > HISTORY:
            del self._furthest[next(iter(self._furthest))]

    def completed(self, name: str) -> None:
        """The body arrived; fetching it again later is no retransfer."""
        self._furthest.pop(name, None)

    def answered(self, seconds: float) -> None:
        """Record a small call's duration on an open connection, first byte to answer."""
        if seconds > 0:
            self._round_trips.append(seconds)

    @property
    def rtt_s(self) -> float | None:
        """The fastest of the last small calls; it includes the server's own response time."""
        return min(self._round_trips, default=None)


class Counted:
    """Traffic since this object was created."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._before = (traffic.up, traffic.down, traffic.again)

    def values(self) -> dict[str, float]:
        """Counts under the names that reports and samples use."""
        traffic = self._traffic
        up, down, again = self._before
        counts: dict[str, float] = {
            "net_up_bytes": traffic.up - up,
            "net_down_bytes": traffic.down - down,
            "retransfer_bytes": traffic.again - again,
        }
        if traffic.rtt_s is not None:
            counts["rtt_s"] = traffic.rtt_s
        return counts
