"""What FedPipe may use of a device, and what it plans for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.memory import usable
from fedcore.spec.job import JobSpec


@dataclass(frozen=True)
class Setting:
    """``at_once`` examples of a batch at a time; ``whole``: the encoder trains too."""

    base: str
    batch: int
    at_once: int
    whole: bool
    quality: int

    def of(self, spec: JobSpec) -> JobSpec:
        """The job with it."""
        train = replace(spec.train, batch_size=self.batch, micro_batch=self.micro_batch(spec))
        return replace(spec, model=replace(spec.model, base=self.base), train=train)

    def micro_batch(self, spec: JobSpec) -> int:
        """The option: as the job has it unless fewer at a time are wanted."""
        return spec.train.micro_batch if self.at_once >= self.batch else self.at_once


@dataclass(frozen=True)
class Budget:
    """What a device may use: bytes at its peak, and seconds of training in a round. None: all."""

    memory: float | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, spec: JobSpec, device: Candidate) -> Budget:
        """The job's options, and no more memory than the planner lets a job use of the device.

        Time is unbounded where the device's speed is not known.
        """
        known = usable(device.hardware.memory_bytes)
        bounds = [value for value in (known, spec.method.memory_budget_mb * 1e6) if value]
        speed = device.hardware.peak_flops and device.hardware.bandwidth_bps
        seconds = spec.method.time_budget_s if speed else 0.0
        return cls(min(bounds, default=None), seconds or None)


@dataclass(frozen=True)
class Allocation:
    """A device's plan. ``ranks`` of all candidates by their full names, 0 for those left out.

    ``score``: 0 to 1 of what all of them at the full rank are worth with the job's own base and
    batch. ``memory`` (bytes) and ``seconds`` (of training in a round, None: not known) are at least
    what the planner predicts for it.
    """

    ranks: Mapping[str, int]
    setting: Setting
    score: float
    memory: float
    seconds: float | None
    why: str

    @property
    def adapted(self) -> int:
        """How many matrices train."""
        return sum(rank > 0 for rank in self.ranks.values())

    def tailoring(self, spec: JobSpec) -> dict[str, Any]:
        """The plan as changes to the job (``fedcore.spec.overrides``)."""
        whole = spec.adapter.rank
        never = [entry for entry in spec.adapter.pattern if entry.endswith("=0")]
        unlike = [f"{name}={rank}" for name, rank in self.ranks.items() if rank != whole]
        found: dict[str, Any] = {
            "adapter.pattern": [*unlike, *never],
            "train.batch_size": self.setting.batch,
        }
        if (micro := self.setting.micro_batch(spec)) != spec.train.micro_batch:
            found["train.micro_batch"] = micro
        if self.setting.base != spec.model.base:
            found["model.base"] = self.setting.base
        return found
