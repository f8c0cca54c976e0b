"""How evenly a model serves the devices: the worst, the spread, Jain's index, the gain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Evenness:
    """Of one score, higher being better, by device.

    ``spread`` is the standard deviation over the devices; ``jain`` is (sum x)^2 / (n sum x^2), 1
    where all are alike and 1/n where one has everything (Jain, Chiu and Hawe 1984, DEC-TR-301).
    """

    worst_device: str
    worst: float
    mean: float
    spread: float
    jain: float


def evenness(scores: Mapping[str, float]) -> Evenness | None:
    """None without a score. Scores must not be negative; where all are 0 they are alike."""
    if not scores:
        return None
    values = [scores[name] for name in sorted(scores)]
    count, total = len(values), math.fsum(values)
    squares = math.fsum(value * value for value in values)
    mean = total / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / count)
    worst = min(sorted(scores), key=lambda name: scores[name])
    jain = total * total / (count * squares) if squares else 1.0
    return Evenness(worst, scores[worst], mean, spread, jain)
