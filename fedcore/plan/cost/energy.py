"""Energy of a device's round in joules: computing, communication and waiting.

Power is measured or comes from the board's data sheet; without it there is no estimate. A device
draws its full power while it computes and its idle power while it waits. While it only transfers,
it draws a little more than idle (our choice), since the processor handles the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.hardware.profile import Hardware
from fedcore.plan.cost.coefficients import COMMUNICATION_POWER


@dataclass(frozen=True)
class Energy:
    """Joules by state; None if the power in that state is not known."""

    compute_j: float | None = None
    communication_j: float | None = None
    waiting_j: float | None = None
    measured: bool = False

    @property
    def total_j(self) -> float | None:
        """None unless computing is known. Other unknown parts count as 0 (see ``complete``)."""
        if self.compute_j is None:
            return None
        return self.compute_j + (self.communication_j or 0.0) + (self.waiting_j or 0.0)

    @property
    def complete(self) -> bool:
        """Whether every part of the total is known."""
        return None not in (self.compute_j, self.communication_j, self.waiting_j)


def energy(
    hardware: Hardware, compute_s: float, communication_s: float, waiting_s: float
) -> Energy:
    """Joules of that many seconds in each state."""
    full, idle = hardware.full_watts, hardware.idle_watts
    transfer_watts = None
    if full is not None and idle is not None:
        transfer_watts = idle + COMMUNICATION_POWER * max(0.0, full - idle)
    return Energy(
        compute_j=_joules(full, compute_s),
        communication_j=_joules(transfer_watts, communication_s),
        waiting_j=_joules(idle, waiting_s),
        measured={"full_watts", "idle_watts"} <= hardware.measured,
    )


def _joules(watts: float | None, seconds: float) -> float | None:
    return None if watts is None else watts * seconds
