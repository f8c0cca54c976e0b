"""Read the end of each round from a peer's log."""

from __future__ import annotations

import re

from workers.stack.processes import StartError

MARK = re.compile(r"^ROUND-ENDED (\d+\.\d+)$", re.MULTILINE)


def moments_in(log: str, rounds: int) -> list[float]:
    """Unix time of each round's end. Raises StartError if some are missing."""
    moments = [float(text) for text in MARK.findall(log)]
    if len(moments) < rounds:
        raise StartError(f"{len(moments)} of {rounds} rounds ended; its log says:\n{log[-2000:]}")
    return moments
