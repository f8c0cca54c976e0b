"""What one fold is given, and what it reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcore.aggregation.strategies import Strategy
from fedcore.aggregation.update_files import UpdateFile, WeightedUpdate
from fedcore.spec.job import JobSpec
from fedcore.wire.frame import FrameInfo


@dataclass(frozen=True)
class ServerFiles:
    """Paths of the global model and of the server optimizer's state (None: no state yet)."""

    model: Path
    state: Path | None


@dataclass(frozen=True)
class NextFiles:
    """Where the next model and the server's state are written.

    ``step`` is for the difference between the models, where a job sends that to devices.
    """

    model: Path
    state: Path
    step: Path | None = None


@dataclass(frozen=True)
class FoldTask:
    """One fold: the job, its strategy, the files. ``threads`` 0: as many as there are cores."""

    spec: JobSpec
    strategy: Strategy
    before: ServerFiles
    updates: Sequence[UpdateFile]
    after: NextFiles
    threads: int = 0


@dataclass(frozen=True)
class FoldReport:
    """Norms (before filters) and weights (sum 1) of the updates by slot, and the written frames.

    Where a slot has several updates, its weight is the sum, its norm that of the last one.
    ``aggregation_error`` is |served - mean(s B A)| / |mean(s B A)| over all adapted matrices,
    before the server optimizer. It is None for full fine-tuning, for folds that are no mean, and
    where nothing was learned at all. ``bytes_read`` counts the updates' bytes once.
    """

    update_norms: dict[int, float]
    weights: dict[int, float]
    aggregation_error: float | None
    seconds: float
    bytes_read: int
    global_frame: FrameInfo
    state_frame: FrameInfo

    @classmethod
    def of(
        cls,
        updates: Sequence[WeightedUpdate[Any]],
        norms: Sequence[float],
        error: float | None,
        frames: tuple[FrameInfo, FrameInfo],
    ) -> FoldReport:
        """The report of folded updates; its seconds are 0 until the caller fills them in."""
        weights: dict[int, float] = {}
        for update in updates:
            weights[update.key[0]] = weights.get(update.key[0], 0.0) + update.share
        by_slot = {update.key[0]: norm for update, norm in zip(updates, norms, strict=True)}
        size_bytes = sum(update.size_bytes for update in updates)
        return cls(by_slot, weights, error, 0.0, size_bytes, *frames)
