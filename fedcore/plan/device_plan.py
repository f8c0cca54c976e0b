"""What the planner predicts for one device's part of a round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedcore.plan.cost.energy import Energy
from fedcore.plan.cost.memory import Memory
from fedcore.plan.cost.step_time import Step

if TYPE_CHECKING:
    from fedcore.plan.fedpipe.types import Allocation


PHASES = ("download_s", "train_s", "evaluate_s", "upload_s", "wait_s")


@dataclass(frozen=True)
class DevicePlan:
    """``why`` says why it does not fit, '' if it does. None where it cannot be known.

    ``bytes_down`` is a mean of the rounds where it grows, ``bytes_down_last`` that of the last one.
    ``planned`` is what FedPipe chose for it, where the job leaves that to FedPipe.
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
    planned: Allocation | None = None

    @property
    def fits(self) -> bool:
        return not self.why

    @property
    def step_s(self) -> float | None:
        return self.step.seconds if self.step else None

    @property
    def busy_s(self) -> float | None:
        """A whole round without waiting for others."""
        parts = [self.seconds.get(name) for name in PHASES[:-1]]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    @property
    def granularity(self) -> float | None:
        """Seconds of computing over seconds of transfers; infinite where these take no time."""
        train = self.seconds.get("train_s")
        moved = [self.seconds.get(name) for name in ("download_s", "upload_s")]
        if train is None or None in moved:
            return None
        travelling = sum(part for part in moved if part is not None)
        return train / travelling if travelling > 0 else math.inf
