"""What a peer's server prints at the end of each round, found in its log."""

from __future__ import annotations

import re

from workers.stack.processes import StartError

MARK = re.compile(r"^ROUND-ENDED (\d+\.\d+)$", re.MULTILINE)


def moments_in(log: str, rounds: int) -> list[float]:
    """Seconds since 1970 of each round's end; raises StartError where some are missing."""
    found = [float(text) for text in MARK.findall(log)]
    if len(found) < rounds:
        raise StartError(f"{len(found)} of {rounds} rounds ended; its log says:\n{log[-2000:]}")
    return found
