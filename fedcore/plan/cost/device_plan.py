"""The planner's prediction of one device's part of a round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedcore.plan.cost.allocation import Allocation
from fedcore.plan.cost.energy import Energy
from fedcore.plan.cost.memory import Memory
from fedcore.plan.cost.step_time import Step

PHASES = ("download_s", "train_s", "evaluate_s", "upload_s", "wait_s")


@dataclass(frozen=True)
class DevicePlan:
    """``why``: why the job does not fit the device, '' if it does. None: not known.

    ``bytes_down``: mean over the rounds; ``bytes_down_last``: in the last one. ``allocation``:
    FedPipe's choice for the device, in a job that uses FedPipe.
    """

    name: str
    why: str
    precision: str
    memory: Memory
    micro_batch: int
    steps: int
    bytes_down: int
    bytes_down_last: int
    bytes_up: int
    codec: str
    step: Step | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    energy: Energy = field(default_factory=Energy)
    cost: float | None = None
    notes: tuple[str, ...] = ()
    allocation: Allocation | None = None

    @property
    def fits(self) -> bool:
        return not self.why

    @property
    def step_s(self) -> float | None:
        return self.step.seconds if self.step else None

    @property
    def busy_s(self) -> float | None:
        """Seconds of a round without waiting for others."""
        parts = [self.seconds.get(name) for name in PHASES[:-1]]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    @property
    def granularity(self) -> float | None:
        """Seconds of training / seconds of transfers; infinite if transfers take no time."""
        train = self.seconds.get("train_s")
        moved = [self.seconds.get(name) for name in ("download_s", "upload_s")]
        if train is None or None in moved:
            return None
        transfer_s = sum(part for part in moved if part is not None)
        return train / transfer_s if transfer_s > 0 else math.inf
