"""Joules of a device's round, in computing, communication and waiting.

Watts are measured or from the board's data sheet; without them nothing is said. A device that
computes draws its full power, one that waits its idle power, and one that only transfers a little
more than that (our choice: a share of the way up, since the processor still handles the bytes).
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.hardware.profile import Hardware
from fedcore.plan.cost.coefficients import COMMUNICATION_POWER


@dataclass(frozen=True)
class Energy:
    """Joules; None where the watts of that state are not known."""

    compute_j: float | None = None
    communication_j: float | None = None
    waiting_j: float | None = None
    measured: bool = False

    @property
    def total_j(self) -> float | None:
        """None unless computing is known; unknown parts of it count nothing and are told so."""
        if self.compute_j is None:
            return None
        return self.compute_j + (self.communication_j or 0.0) + (self.waiting_j or 0.0)

    @property
    def whole(self) -> bool:
        """Whether no part is missing from the total."""
        return None not in (self.compute_j, self.communication_j, self.waiting_j)


def energy(
    hardware: Hardware, compute_s: float, communication_s: float, waiting_s: float
) -> Energy:
    """Joules of so many seconds in each state."""
    full, idle = hardware.full_watts, hardware.idle_watts
    sending = None
    if full is not None and idle is not None:
        sending = idle + COMMUNICATION_POWER * max(0.0, full - idle)
    return Energy(
        compute_j=_joules(full, compute_s),
        communication_j=_joules(sending, communication_s),
        waiting_j=_joules(idle, waiting_s),
        measured={"full_watts", "idle_watts"} <= hardware.measured,
    )


def _joules(watts: float | None, seconds: float) -> float | None:
    return None if watts is None else watts * seconds
