"""Fairness over devices: the worst score, the standard deviation and Jain's index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Evenness:
    """Fairness of one score by device; higher scores are better.

    ``spread``: standard deviation over the devices. ``jain``: (sum x)^2 / (n sum x^2), 1 if all are
    equal and 1/n if one device has everything (Jain, Chiu and Hawe 1984, DEC-TR-301).
    """

    worst_device: str
    worst: float
    mean: float
    spread: float
    jain: float


def evenness(scores: Mapping[str, float]) -> Evenness | None:
    """None without scores. Scores must not be negative; if all are 0 they count as equal."""
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
