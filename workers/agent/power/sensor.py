"""A power sensor: a gauge of watts, or counters of joules; and readers of sysfs files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Denied(Exception):
    """The sensor exists but may not be read; the text says how to allow it."""


@dataclass(frozen=True)
class Gpu:
    """The GPU that training runs on. ``uuid`` is the driver's, where torch reports it."""

    used: bool = False
    uuid: str = ""


@dataclass(frozen=True)
class Counter:
    """Joules since some time in the past. ``wraps_at_j``: where it restarts, if known.

    ``read`` raises OSError or ValueError.
    """

    read: Callable[[], float]
    wraps_at_j: float | None = None

    def increment(self, before: float, after: float, max_j: float) -> float | None:
        """How far it moved; None where it may have wrapped more than once, or was reset."""
        if self.wraps_at_j is not None and max_j > self.wraps_at_j:
            return None
        moved = after - before
        if moved < 0 and self.wraps_at_j is not None:
            moved += self.wraps_at_j
        return moved if moved >= 0 else None


@dataclass(frozen=True)
class Sensor:
    """Has either ``watts`` or ``counters``, which are summed.

    ``watts`` returns None without a reading, for example from a battery on mains power. Readings
    above ``highest_w`` are implausible and rejected.
    """

    name: str
    covers: str
    highest_w: float
    watts: Callable[[], float | None] | None = None
    counters: tuple[Counter, ...] = ()


def text_of(path: Path) -> str:
    """The text of a sysfs file. Raises OSError where it cannot be read."""
    return path.read_text("utf-8", "replace").strip("\0 \n")


def name_of(path: Path) -> str:
    """The text of a sysfs file; '' where it cannot be read."""
    try:
        return text_of(path)
    except OSError:
        return ""


def number_of(path: Path) -> float:
    """The number in a sysfs file. Raises OSError, or ValueError naming the file."""
    text = text_of(path)
    try:
        return float(int(text))
    except ValueError:
        raise ValueError(f"{path} contains {text[:40]!r}, which is not a whole number") from None
