"""Estimated power of a known machine without a sensor: between its idle and full watts, by load.

Linear in the share of time that its processor (or GPU) was busy, which is coarse. Estimates are
never reported as measured, and unknown machines have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from fedcore.hardware.machines import MACHINES
from workers.agent.http.server_clock import steady
from workers.agent.power import nvml
from workers.agent.power.meter import LONGEST_GAP_S, NOTHING, Portion
from workers.agent.power.sensor import Gpu, number_of
from workers.agent.power.sensor_kinds import ROOT, log_once

# A Jetson GPU's busy time, in thousandths.
GPU_LOADS = ("sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load")
SHORTEST_S = 0.2  # the kernel's ticks are too coarse for less

Busy = Callable[[], float]


class PowerEstimate:
    """Reads like a Meter. ``busy`` returns the busy share since its last call, 0 to 1."""

    def __init__(
        self,
        idle_watts: float,
        full_watts: float,
        busy: Busy,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._idle, self._full, self._busy, self._clock = idle_watts, full_watts, busy, clock
        self._at = clock()
        self._busy_share()

    def read(self) -> Portion:
        now = self._clock()
        seconds = now - self._at
        if seconds < SHORTEST_S:
            return NOTHING
        self._at = now
        share = self._busy_share()
        if share is None or seconds > LONGEST_GAP_S:
            return Portion(missing_s=seconds)
        return Portion((self._idle + (self._full - self._idle) * share) * seconds, seconds)

    def _busy_share(self) -> float | None:
        try:
            return min(1.0, max(0.0, self._busy()))
        except (OSError, ValueError) as error:
            log_once("estimate", "cannot estimate the power: %s", error)
            return None


def estimate(profile: Mapping[str, Any], gpu: Gpu, root: Path = ROOT) -> PowerEstimate | None:
    """None where the machine is unknown, or the table lacks its idle or full power."""
    machine = MACHINES.get(str(profile.get("board") or ""))
    if machine is None or machine.idle_watts is None or machine.full_watts is None:
        return None
    busy = _busy_function(gpu, root)
    return PowerEstimate(machine.idle_watts, machine.full_watts, busy) if busy else None


def _busy_function(gpu: Gpu, root: Path) -> Busy | None:
    """Reads the load of the part whose power the table has: GPU, module or board."""
    load = next((root / path for path in GPU_LOADS if (root / path).exists()), None)
    if load is not None:
        return lambda: max(_cpu_share(), number_of(load) / 1000)
    if gpu.used:
        card = nvml.card(root, gpu)
        return card.utilisation if card else None
    return _cpu_share


def _cpu_share() -> float:
    return float(psutil.cpu_percent()) / 100
