"""Numbers as text: three significant digits, SI units, short durations."""

from __future__ import annotations

import math
from datetime import datetime

from django.utils import timezone

NONE = "–"
# Far above every quantity here.
LARGEST = 1e30
SI = ("", "k", "M", "G", "T", "P", "E")
SMALL = ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def plausible(value: object, low: float = 0.0, high: float = math.inf) -> float | None:
    """The number if it is in [low, high], else None."""
    read = number(value)
    return read if read is not None and low <= read <= min(high, LARGEST) else None


def significant(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits; no exponent below a million."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else NONE
    rounded = float(f"{value:.{digits - 1}e}")
    places = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, places)}f}" if abs(rounded) < 1e6 else f"{rounded:.{digits - 1}e}"


def si(value: float | None, unit: str = "") -> str:
    """``842 GFLOP/s``, ``38.2 MB``."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return f"0 {unit}".rstrip()
    power = min(len(SI) - 1, max(0, math.floor(math.log10(abs(value)) / 3)))
    if round(abs(value) / 1000**power, 2) >= 999.5 and power < len(SI) - 1:
        power += 1
    return f"{significant(value / 1000**power)} {SI[power]}{unit}".rstrip()


def size(value: float | None) -> str:
    """Bytes: ``38.2 MB``; whole bytes below a kilobyte."""
    if value is not None and abs(value) < 1000:
        return f"{value:.0f} B"
    return si(value, "B")


def percent(share: float | None) -> str:
    """A share of 1 as ``41.2 %``."""
    return NONE if share is None else f"{significant(100 * share)} %"


def duration(seconds: float | None) -> str:
    """``40 ms``, ``38 s``, ``14 min``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if 0 < seconds < 0.0995:
        return f"{significant(1000 * seconds, 2)} ms"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    total = round(seconds)
    if total < 90:
        return f"{total} s"
    if total < 5400:
        return f"{round(total / 60)} min"
    if total < 172_800:
        minutes = round(total / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(total / 3600)
    return f"{hours // 24} d {hours % 24} h"


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """``just now``, ``40 s ago``, ``3 h ago``, ``in 2 h``; a date once it is over a month."""
    if at is None:
        return "never"
    seconds = ((now or timezone.now()) - at).total_seconds()
    if abs(seconds) > 30 * 86_400:
        return f"{at:%Y-%m-%d}"
    if 0 <= seconds < 3:
        return "just now"
    words = coarse(abs(seconds))
    return f"in {words}" if seconds < 0 else f"{words} ago"


def coarse(seconds: float) -> str:
    """One unit only: ``40 s``, ``12 min``, ``3 h``, ``9 d``."""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * length:
            return f"{round(seconds / length)} {unit}"
    return f"{round(seconds)} s"
