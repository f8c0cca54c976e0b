"""The memory and time that FedPipe may use of a device."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.memory import usable
from fedcore.spec.job import JobSpec


@dataclass(frozen=True)
class Budget:
    """Bytes at the peak, and seconds of training per round; None: unlimited."""

    memory: float | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, spec: JobSpec, device: Candidate) -> Budget:
        """The job's budgets, within the memory that the planner lets a job use.

        Time is unlimited if the device's speed is not known.
        """
        known = usable(device.hardware.memory_bytes)
        bounds = [value for value in (known, spec.method.memory_budget_mb * 1e6) if value]
        speed = device.hardware.peak_flops and device.hardware.bandwidth_bps
        seconds = spec.method.time_budget_s if speed else 0.0
        return cls(min(bounds, default=None), seconds or None)
