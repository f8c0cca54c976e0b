"""Joules of one assignment: by what was going on, since the last sample, and all of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from workers.agent.power.meter import Meter, Portion
from workers.agent.power.power_estimate import estimate
from workers.agent.power.sensor import Gpu
from workers.agent.power.table import choose

SHORTEST_S = 0.25  # of a sample's power; a shorter time is one step of a counter
MISSING_SHARE = 0.01  # of an assignment's time; with more unknown its total is not told
PARTS = ("compute", "communication", "waiting")
# What a phase of an assignment counts as. All other time, such as between acceptance and the first
# download or while the server is away, is waiting.
PART_OF: Mapping[str, str] = {
    "training": "compute",
    "evaluating": "compute",
    "folding": "compute",
    "downloading": "communication",
    "uploading": "communication",
}


class Readable(Protocol):
    """A Meter, or an Estimate."""

    def read(self) -> Portion: ...


class Ledger:
    """Portions of one source. ``suffix`` is what its names have after ``watts`` and ``energy``."""

    def __init__(self, source: Readable, suffix: str) -> None:
        self._source = source
        self._suffix = suffix
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._seconds = self._missing_s = 0.0
        self._open = Portion()
        self._watts: float | None = None

    def take(self, part: str) -> None:
        """What was drawn since the last time counts as ``part``."""
        found = self._source.read()
        self._parts[part] += found.joules
        self._seconds += found.seconds
        self._missing_s += found.missing_s
        old = self._open
        self._open = Portion(
            old.joules + found.joules,
            old.seconds + found.seconds,
            old.missing_s + found.missing_s,
        )

    def sample(self) -> dict[str, float] | None:
        """Power, and energy since the last sample that had it; None where part is not known."""
        drawn = self._open
        if drawn.missing_s:
            self._open, self._watts = Portion(), None
            return None
        values: dict[str, float] = {}
        if drawn.seconds >= SHORTEST_S:
            self._open, self._watts = Portion(), drawn.joules / drawn.seconds
            values[f"energy{self._suffix}_j"] = drawn.joules
        if self._watts is not None:
            values[f"watts{self._suffix}"] = self._watts
        return values

    def report(self) -> dict[str, float]:
        """The total and its parts, whose sum it is; nothing where too much is missing."""
        if not self._seconds or self._missing_s > MISSING_SHARE * self._seconds:
            return {}
        parts = {f"{name}_j": round(joules, 6) for name, joules in self._parts.items()}
        return {f"energy{self._suffix}_j": sum(parts.values()), **parts}


class AssignmentEnergy:
    """What a device draws while an assignment is done; measured before estimated, or nothing."""

    def __init__(self, measured: Readable | None = None, estimated: Readable | None = None) -> None:
        sources = ((measured, ""), (estimated, "_estimated"))
        self._ledgers = [Ledger(source, suffix) for source, suffix in sources if source]
        self._part = PARTS[-1]
        self._lock = threading.Lock()

    def enter(self, phase: str) -> None:
        """Another phase has begun; what was drawn so far belongs to the former one."""
        with self._lock:
            self._take()
            self._part = PART_OF.get(phase, PARTS[-1])

    def poll(self) -> None:
        """Look at the sensors; twice a second is enough."""
        with self._lock:
            self._take()

    def _take(self) -> None:
        for ledger in self._ledgers:
            ledger.take(self._part)

    def sample(self) -> dict[str, float]:
        """Values of a sample, from what was polled: no sensor is read."""
        with self._lock:
            found = [ledger.sample() for ledger in self._ledgers]
        return next((values for values in found if values is not None), {})

    def report(self) -> dict[str, float]:
        """Of the assignment so far."""
        with self._lock:
            self._take()
            found = [ledger.report() for ledger in self._ledgers]
        return next((values for values in found if values), {})


def gpu_of(profile: Mapping[str, Any]) -> Gpu:
    return Gpu(bool(profile.get("accelerator")), str(profile.get("accelerator_uuid") or ""))


def energy_of(profile: Mapping[str, Any]) -> AssignmentEnergy:
    """By this device's best sensor, and by its profile where that fails."""
    gpu = gpu_of(profile)
    sensor = choose(gpu)
    return AssignmentEnergy(Meter(sensor) if sensor else None, estimate(profile, gpu))
