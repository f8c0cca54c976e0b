"""Device profiles: what a device of a fleet needs for a round, in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.hardware.links import INSTANT, Link


@dataclass(frozen=True)
class Machine:
    """Seconds of one optimizer step on this device, and its way to the server."""

    seconds_per_step: float = 0.0
    link: Link = INSTANT

    def round_s(self, steps: int, down_bytes: float, up_bytes: float) -> float:
        """Fetching the model, training, and sending the update, one after another."""
        training = steps * self.seconds_per_step
        return self.link.down_s(down_bytes) + training + self.link.up_s(up_bytes)
