"""Integrates a sensor's readings into joules; what cannot be known counts as missing.

Nothing is interpolated: a reading that fails, is implausible or comes too late leaves a gap, and a
total with gaps is not reported. Times are of a clock that is never set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.agent.http.server_clock import steady
from workers.agent.power.sensor import Sensor
from workers.agent.power.sensor_kinds import log_once

LONGEST_GAP_S = 5.0  # between two readings of a gauge; their mean says nothing about a longer one
STUCK_S = 10.0  # a counter that stands still for this long is broken
UPDATE_S = 1.0  # counters move in steps; a step may cover this much more than the measured time


@dataclass(frozen=True)
class Portion:
    """Energy used in ``seconds``, and the seconds about which nothing is known."""

    joules: float = 0.0
    seconds: float = 0.0
    missing_s: float = 0.0


NOTHING = Portion()


class Meter:
    """``read`` returns the energy since its last call."""

    def __init__(self, sensor: Sensor, clock: Callable[[], float] = steady) -> None:
        self._sensor = sensor
        self._clock = clock
        self._at = clock()
        self._last = self._query()

    def read(self) -> Portion:
        now = self._clock()
        seconds = now - self._at
        if seconds <= 0:
            return NOTHING
        reading = self._query()
        joules = self._joules(reading, seconds)
        if joules == 0.0 and seconds < STUCK_S:
            return NOTHING  # the counter has not moved yet; the next reading includes this time
        if not joules and reading and self._last and self._sensor.counters:
            self._warn_once("is not plausible: its counters stand still or jump")
        self._at, self._last = now, reading
        return Portion(joules, seconds) if joules else Portion(missing_s=seconds)

    def _query(self) -> Sequence[float] | None:
        """The counters, or the power alone; None where there is no plausible reading."""
        sensor = self._sensor
        try:
            if sensor.counters:
                return [counter.read() for counter in sensor.counters]
            watts = sensor.watts() if sensor.watts else None
        except (OSError, ValueError) as error:
            self._warn_once("cannot be read any more", error)
            return None
        if watts is None:
            return None
        if not 0 < watts <= sensor.highest_w:
            self._warn_once("is not plausible", f"it reports {watts:.6g} W")
            return None
        return [watts]

    def _warn_once(self, problem: str, reason: object = "") -> None:
        name = self._sensor.name
        log_once(f"{name} {problem}", "%s %s%s", name, problem, f": {reason}" if reason else "")

    def _joules(self, reading: Sequence[float] | None, seconds: float) -> float | None:
        """Energy between the last reading and this one; None where it cannot be known."""
        if reading is None or self._last is None:
            return None
        if not self._sensor.counters:
            mean_w = (reading[0] + self._last[0]) / 2
            return None if seconds > LONGEST_GAP_S else mean_w * seconds
        max_j = self._sensor.highest_w * (seconds + UPDATE_S)
        increments = [
            counter.increment(before, after, max_j)
            for counter, before, after in zip(
                self._sensor.counters, self._last, reading, strict=True
            )
        ]
        known = [joules for joules in increments if joules is not None]
        total = sum(known)
        return total if len(known) == len(increments) and total <= max_j else None
