"""FedPipe's allocation for a device (``fedcore.plan.fedpipe``): ranks, batch size and base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedcore.spec.job import JobSpec


@dataclass(frozen=True)
class Setting:
    """What FedPipe can change beside the ranks.

    ``at_once``: examples of a batch that are processed at a time. ``encoder_trains``: adapters may
    be put on the encoder. ``quality``: per mille of the score that the setting retains.
    """

    base: str
    batch: int
    at_once: int
    encoder_trains: bool
    quality: int

    def applied_to(self, spec: JobSpec) -> JobSpec:
        """The job with this setting."""
        train = replace(spec.train, batch_size=self.batch, micro_batch=self.micro_batch(spec))
        return replace(spec, model=replace(spec.model, base=self.base), train=train)

    def micro_batch(self, spec: JobSpec) -> int:
        """The option ``train.micro_batch``: the job's own unless fewer examples fit at a time."""
        return spec.train.micro_batch if self.at_once >= self.batch else self.at_once


@dataclass(frozen=True)
class Allocation:
    """A device's allocation. ``ranks``: of all candidate matrices by full name, 0 if left out.

    ``score``: 0 to 1, where 1 is every matrix at full rank with the job's own base and batch size.
    ``memory`` (bytes) and ``seconds`` (of training per round; None: not known) are at least what
    the planner predicts for it.
    """

    ranks: Mapping[str, int]
    setting: Setting
    score: float
    memory: float
    seconds: float | None
    why: str

    @property
    def adapted(self) -> int:
        """Number of matrices that train."""
        return sum(rank > 0 for rank in self.ranks.values())

    def overrides(self, spec: JobSpec) -> dict[str, Any]:
        """The allocation as per-device overrides (``fedcore.spec.overrides``)."""
        full_rank = spec.adapter.rank
        excluded = [entry for entry in spec.adapter.pattern if entry.endswith("=0")]
        others = [f"{name}={rank}" for name, rank in self.ranks.items() if rank != full_rank]
        values: dict[str, Any] = {
            "adapter.pattern": [*others, *excluded],
            "train.batch_size": self.setting.batch,
        }
        if (micro := self.setting.micro_batch(spec)) != spec.train.micro_batch:
            values["train.micro_batch"] = micro
        if self.setting.base != spec.model.base:
            values["model.base"] = self.setting.base
        return values
