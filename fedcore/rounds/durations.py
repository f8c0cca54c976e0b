"""Predicted times: how long a device's next round takes, and the deadline that follows from it.

Seconds throughout. A device that has not reported yet has no prediction; where an order is needed
it counts as slower than every other.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

REMEMBERED = 3  # reports; their median forgives one hiccup
SHORTEST_DEADLINE_S = 1.0
PARTS = ("download_s", "seconds", "upload_s")


def round_seconds(metrics: Mapping[str, Any]) -> float | None:
    """Training and both transfers, from a report's metrics; None where it does not say."""
    parts = [metrics.get(name, 0.0) for name in PARTS]
    if any(isinstance(part, bool) or not isinstance(part, (int, float)) for part in parts):
        return None
    total = float(sum(parts))
    return total if math.isfinite(total) and total > 0 else None


def predict(history: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Each device's next round from (device, seconds) of former ones, the newest first."""
    times: dict[str, list[float]] = {}
    for device, seconds in history:
        held = times.setdefault(device, [])
        if len(held) < REMEMBERED:
            held.append(seconds)
    return {device: statistics.median(held) for device, held in times.items()}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of ``values`` does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)]


def version_s(times: Sequence[float], size: int, together: int) -> float:
    """Seconds between two versions of an asynchronous job, on average.

    Devices that take ``times`` deliver at the sum of their rates, where all of them work at once;
    ``together`` of them do, and ``size`` updates make a version.
    """
    per_s = sum(1 / seconds for seconds in times) * min(1.0, together / len(times))
    return size / per_s


def deadline_s(
    members: Sequence[str],
    predicted: Mapping[str, float],
    share: float,
    slack: float,
    longest_s: float,
) -> float:
    """How long a round collects: ``slack`` times the ``share``-quantile of its members' times.

    Never more than ``longest_s``, which also holds where the quantile falls on a device that has
    not reported yet; so everybody is waited for until enough of them are known.
    """
    if not members or share <= 0:
        return longest_s
    times = [predicted.get(member, math.inf) for member in members]
    return min(longest_s, max(SHORTEST_DEADLINE_S, slack * quantile(times, share)))
