"""A virtual device of a simulated fleet: its seconds per step and its link."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.hardware.links import INSTANT, Link


@dataclass(frozen=True)
class Machine:
    """Seconds of one optimizer step, and the link to the server."""

    seconds_per_step: float = 0.0
    link: Link = INSTANT

    def round_s(self, steps: int, down_bytes: float, up_bytes: float) -> float:
        """Seconds of download, training and upload, one after another."""
        training = steps * self.seconds_per_step
        return self.link.down_s(down_bytes) + training + self.link.up_s(up_bytes)
