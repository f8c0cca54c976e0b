"""How much of the time that a clock says has passed counts for leases and deadlines."""

from __future__ import annotations

# Two looks may lie further apart than planned by so much, on a busy machine, and nothing happens.
TOLERATED_S = 3.0


def outage_s(gap_s: float, interval_s: float) -> float:
    """Seconds by which every open lease and deadline moves, from the gap between two looks.

    ``gap_s`` is by the clock on the wall, ``interval_s`` what lies between two looks as planned. A
    longer gap means that the server was away or its clock was put forward; a negative one that the
    clock was put back. Either way nobody was late for that: what was left of a lease is left still.
    """
    if -TOLERATED_S <= gap_s <= interval_s + TOLERATED_S:
        return 0.0
    return gap_s - interval_s
