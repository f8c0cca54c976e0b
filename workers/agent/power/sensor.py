"""What a power sensor is to the agent: a gauge of watts, or counters of joules, in plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Denied(Exception):
    """The sensor is there and may not be read; the text says how to allow it."""


@dataclass(frozen=True)
class Gpu:
    """The card that training runs on. ``uuid``: its name for its driver, where torch tells it."""

    used: bool = False
    uuid: str = ""


@dataclass(frozen=True)
class Counter:
    """Joules since some time in the past. ``wraps_at_j``: where it starts again, if that is known.

    ``read`` raises OSError or ValueError where it cannot.
    """

    read: Callable[[], float]
    wraps_at_j: float | None = None


@dataclass(frozen=True)
class Sensor:
    """Either ``watts`` or ``counters``; of these the sum counts.

    ``watts`` gives None while it has nothing to say, such as a battery on the mains. What is above
    ``highest_w`` is no power of such a machine and is not believed.
    """

    name: str
    covers: str
    highest_w: float
    watts: Callable[[], float | None] | None = None
    counters: tuple[Counter, ...] = ()


def text_of(path: Path) -> str:
    """A file of sysfs. Raises OSError where it cannot be read."""
    return path.read_text("utf-8", "replace").strip("\0 \n")


def name_of(path: Path) -> str:
    """The same, or nothing."""
    try:
        return text_of(path)
    except OSError:
        return ""


def number_of(path: Path) -> float:
    """Raises OSError or ValueError; a text that is no number says which file has it."""
    text = text_of(path)
    try:
        return float(int(text))
    except ValueError:
        raise ValueError(f"{path} holds {text[:40]!r}, no whole number") from None
