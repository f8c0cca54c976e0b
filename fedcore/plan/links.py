"""Link profiles: how long bytes travel between a device and its server.

Round numbers for planning and for simulations, chosen by us for the kind of link they are named
after; measure your own where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """Bytes per second each way, and seconds until the first byte arrives."""

    up_bps: float
    down_bps: float
    delay_s: float

    def up_s(self, size: float) -> float:
        return self.delay_s + size / self.up_bps

    def down_s(self, size: float) -> float:
        return self.delay_s + size / self.down_bps


INSTANT = Link(float("inf"), float("inf"), 0.0)
LINKS: Mapping[str, Link] = {
    "instant": INSTANT,
    "lan": Link(117e6, 117e6, 0.001),  # gigabit Ethernet
    "wifi": Link(10e6, 10e6, 0.01),
    "5g": Link(5e6, 25e6, 0.03),
    "dsl": Link(1.25e6, 6.25e6, 0.03),  # 10 and 50 Mbit/s
    "4g": Link(1.25e6, 4e6, 0.06),
    "3g": Link(0.1e6, 0.5e6, 0.2),
}
