"""Energy of one assignment in joules: by activity, since the last sample, and in total."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from workers.agent.power.meter import Meter, Portion
from workers.agent.power.power_estimate import estimate
from workers.agent.power.sensor import Gpu
from workers.agent.power.sensor_kinds import choose

SHORTEST_S = 0.25  # a sample's power needs this long; a shorter time is one counter step
MISSING_SHARE = 0.01  # of an assignment's time; with more missing, no total is reported
PARTS = ("compute", "communication", "waiting")
# What a phase counts as. All other time is waiting, for example between acceptance and the first
# download, or while the server is away.
PART_OF: Mapping[str, str] = {
    "training": "compute",
    "evaluating": "compute",
    "folding": "compute",
    "downloading": "communication",
    "uploading": "communication",
}


class Readable(Protocol):
    """A Meter or a PowerEstimate."""

    def read(self) -> Portion: ...


class Ledger:
    """Energy from one source. ``suffix`` follows ``watts`` and ``energy`` in its metric names."""

    def __init__(self, source: Readable, suffix: str) -> None:
        self._source = source
        self._suffix = suffix
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._seconds = self._missing_s = 0.0
        self._since_sample = Portion()
        self._watts: float | None = None

    def update(self, part: str) -> None:
        """Count the energy since the last update as ``part``."""
        portion = self._source.read()
        self._parts[part] += portion.joules
        self._seconds += portion.seconds
        self._missing_s += portion.missing_s
        previous = self._since_sample
        self._since_sample = Portion(
            previous.joules + portion.joules,
            previous.seconds + portion.seconds,
            previous.missing_s + portion.missing_s,
        )

    def sample(self) -> dict[str, float] | None:
        """Power, and energy since the last sample with one; None where a part is missing."""
        portion = self._since_sample
        if portion.missing_s:
            self._since_sample, self._watts = Portion(), None
            return None
        values: dict[str, float] = {}
        if portion.seconds >= SHORTEST_S:
            self._since_sample, self._watts = Portion(), portion.joules / portion.seconds
            values[f"energy{self._suffix}_j"] = portion.joules
        if self._watts is not None:
            values[f"watts{self._suffix}"] = self._watts
        return values

    def report(self) -> dict[str, float]:
        """The parts and their sum; nothing where too much is missing."""
        if not self._seconds or self._missing_s > MISSING_SHARE * self._seconds:
            return {}
        parts = {f"{name}_j": round(joules, 6) for name, joules in self._parts.items()}
        return {f"energy{self._suffix}_j": sum(parts.values()), **parts}


class AssignmentEnergy:
    """Energy of an assignment: measured if possible, otherwise estimated, otherwise nothing."""

    def __init__(self, measured: Readable | None = None, estimated: Readable | None = None) -> None:
        sources = ((measured, ""), (estimated, "_estimated"))
        self._ledgers = [Ledger(source, suffix) for source, suffix in sources if source]
        self._part = PARTS[-1]
        self._lock = threading.Lock()

    def enter(self, phase: str) -> None:
        """Start another phase; energy so far belongs to the previous one."""
        with self._lock:
            self._update()
            self._part = PART_OF.get(phase, PARTS[-1])

    def poll(self) -> None:
        """Read the sensors; twice a second is enough."""
        with self._lock:
            self._update()

    def _update(self) -> None:
        for ledger in self._ledgers:
            ledger.update(self._part)

    def sample(self) -> dict[str, float]:
        """A sample's values from the last poll; reads no sensor."""
        with self._lock:
            samples = [ledger.sample() for ledger in self._ledgers]
        return next((values for values in samples if values is not None), {})

    def report(self) -> dict[str, float]:
        """Totals of the assignment so far."""
        with self._lock:
            self._update()
            reports = [ledger.report() for ledger in self._ledgers]
        return next((values for values in reports if values), {})


def gpu_of(profile: Mapping[str, Any]) -> Gpu:
    return Gpu(bool(profile.get("accelerator")), str(profile.get("accelerator_uuid") or ""))


def energy_of(profile: Mapping[str, Any]) -> AssignmentEnergy:
    """Energy by this device's best sensor, and estimated from its profile where that fails."""
    gpu = gpu_of(profile)
    sensor = choose(gpu)
    return AssignmentEnergy(Meter(sensor) if sensor else None, estimate(profile, gpu))
