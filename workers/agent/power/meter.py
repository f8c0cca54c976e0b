"""From readings of a sensor to joules, with what cannot be known counted as missing.

Nothing is filled in: a reading that fails, lies beyond what such a machine can draw or comes too
late leaves a gap, and a total with gaps is not a total. Time is that of a clock nobody sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.agent.http.server_clock import steady
from workers.agent.power.sensor import Counter, Sensor
from workers.agent.power.table import tell_once

LONGEST_GAP_S = 5.0  # between two readings of a gauge; over a longer one its mean says nothing
STUCK_S = 10.0  # a counter that stands still for so long is broken
UPDATE_S = 1.0  # counters move in steps: this much longer than measured a step may have lasted


@dataclass(frozen=True)
class Portion:
    """Joules drawn in ``seconds``, and seconds of which nothing is known."""

    joules: float = 0.0
    seconds: float = 0.0
    missing_s: float = 0.0


NOTHING = Portion()


class Meter:
    """``read`` gives what was drawn since it was last called."""

    def __init__(self, sensor: Sensor, clock: Callable[[], float] = steady) -> None:
        self._sensor = sensor
        self._clock = clock
        self._at = clock()
        self._last = self._ask()

    def read(self) -> Portion:
        now = self._clock()
        seconds = now - self._at
        if seconds <= 0:
            return NOTHING
        found = self._ask()
        counted = bool(self._sensor.counters)
        joules = self._counted(found, seconds) if counted else self._integrated(found, seconds)
        if joules == 0.0 and seconds < STUCK_S:
            return NOTHING  # a counter that has not moved yet; the next reading has it all
        if not joules and found and self._last and counted:
            self._tell("is not believed: its counters stand still or leap")
        self._at, self._last = now, found
        return Portion(joules, seconds) if joules else Portion(missing_s=seconds)

    def _ask(self) -> Sequence[float] | None:
        """The counters, or the power alone; None where the sensor cannot be believed now."""
        sensor = self._sensor
        try:
            if sensor.counters:
                return [counter.read() for counter in sensor.counters]
            watts = sensor.watts() if sensor.watts else None
        except (OSError, ValueError) as error:
            self._tell("gives no energy any more", error)
            return None
        if watts is None:
            return None
        if not 0 < watts <= sensor.highest_w:
            self._tell("is not believed", f"it says {watts:.6g} W")
            return None
        return [watts]

    def _tell(self, what: str, why: object = "") -> None:
        name = self._sensor.name
        tell_once(f"{name} {what}", "%s %s%s", name, what, f": {why}" if why else "")

    def _integrated(self, found: Sequence[float] | None, seconds: float) -> float | None:
        if found is None or self._last is None or seconds > LONGEST_GAP_S:
            return None
        return (found[0] + self._last[0]) / 2 * seconds

    def _counted(self, found: Sequence[float] | None, seconds: float) -> float | None:
        if found is None or self._last is None:
            return None
        most_j = self._sensor.highest_w * (seconds + UPDATE_S)
        steps = [
            _step(counter, before, after, most_j)
            for counter, before, after in zip(self._sensor.counters, self._last, found, strict=True)
        ]
        known = [step for step in steps if step is not None]
        total = sum(known)
        return total if len(known) == len(steps) and total <= most_j else None


def _step(counter: Counter, before: float, after: float, most_j: float) -> float | None:
    """How far a counter moved; None where it may have wrapped more than once, or began anew."""
    wraps_at_j = counter.wraps_at_j
    if wraps_at_j is not None and most_j > wraps_at_j:
        return None
    moved = after - before
    if moved < 0 and wraps_at_j is not None:
        moved += wraps_at_j
    return moved if moved >= 0 else None
