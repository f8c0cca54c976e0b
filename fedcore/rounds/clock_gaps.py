"""Server outages and clock jumps, for which leases and deadlines are extended."""

from __future__ import annotations

# On a busy machine two passes of the coordinator may lie this much further apart than planned.
TOLERANCE_S = 3.0


def outage_s(gap_s: float, interval_s: float) -> float:
    """Seconds by which to move open leases and deadlines.

    ``gap_s``: wall-clock time between two passes of the coordinator; ``interval_s``: what it should
    be. A longer gap means that the server was down or the clock jumped ahead, a negative one that
    the clock was set back. Either way no device was late, so each keeps what was left of its lease.
    """
    if -TOLERANCE_S <= gap_s <= interval_s + TOLERANCE_S:
        return 0.0
    return gap_s - interval_s
