"""Predicted round times of devices, and the deadlines that follow from them. All in seconds.

A device that has not reported yet has no prediction. Where an order is needed, it counts as slower
than every other device.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RECENT_REPORTS = 3  # the median of three ignores one outlier
SHORTEST_DEADLINE_S = 1.0
ROUND_PARTS = ("download_s", "seconds", "upload_s")


def round_seconds(metrics: Mapping[str, Any]) -> float | None:
    """Seconds of training and both transfers in a report's metrics; None if they are unusable."""
    parts = [metrics.get(name, 0.0) for name in ROUND_PARTS]
    if any(isinstance(part, bool) or not isinstance(part, (int, float)) for part in parts):
        return None
    total = float(sum(parts))
    return total if math.isfinite(total) and total > 0 else None


def predict(history: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Each device's next round: the median of its recent ones.

    ``history``: (device, seconds) of former rounds, newest first.
    """
    times: dict[str, list[float]] = {}
    for device, seconds in history:
        recent = times.setdefault(device, [])
        if len(recent) < RECENT_REPORTS:
            recent.append(seconds)
    return {device: statistics.median(recent) for device, recent in times.items()}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of ``values`` does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(share * len(ordered), 9)) - 1)]


def version_s(times: Sequence[float], size: int, together: int) -> float:
    """Mean seconds between two versions of an asynchronous job.

    Devices that need ``times`` seconds for an update deliver at the sum of their rates if all train
    at once. ``together`` of them do, and ``size`` updates make a version.
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
    """How long a round collects updates: ``slack`` times the ``share``-quantile of its times.

    At most ``longest_s``, which also applies if the quantile falls on a device without a
    prediction: until enough devices have reported, the round waits for all of them.
    """
    if not members or share <= 0:
        return longest_s
    times = [predicted.get(member, math.inf) for member in members]
    return min(longest_s, max(SHORTEST_DEADLINE_S, slack * quantile(times, share)))
