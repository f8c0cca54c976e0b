"""The files of a fold: the devices' updates, and the server's model and optimizer state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcore.errors import FoldError
from fedcore.spec.job import JobSpec

Key = tuple[int, int]  # slot, attempt


@dataclass(frozen=True)
class UpdateFile:
    """A device's update: a frame of deltas under any codec, its weight, its place in the fold.

    The key (slot, attempt) fixes the order in which updates are summed, so each may be there once.
    ``weight`` is the number of examples. ``scale`` multiplies the deltas themselves: a discount
    that makes the whole step smaller, where a lower weight would only favour the others. ``steps``,
    ``loss_before``: as ``UpdateStats`` has them. ``spec``: the job as this device was given it,
    where that differs from the others'.
    """

    path: Path
    weight: float
    slot: int
    attempt: int = 0
    scale: float = 1.0
    steps: int = 0
    loss_before: float | None = None
    spec: JobSpec | None = None

    @property
    def key(self) -> Key:
        return self.slot, self.attempt


@dataclass(frozen=True)
class ServerFiles:
    """Paths of the global model and of the server optimizer's state (None: no state yet)."""

    model: Path
    state: Path | None


@dataclass(frozen=True)
class NextFiles:
    """Where a round writes the next model, the server's state and the step between the models."""

    model: Path
    state: Path
    step: Path


class UpdatesRefused(FoldError):
    """Updates that cannot be folded, by key with the reason; fold again without them."""

    def __init__(self, reasons: Mapping[Key, str]) -> None:
        self.reasons = dict(reasons)
        texts = (f"the update of slot {key[0]}: {text}" for key, text in sorted(reasons.items()))
        super().__init__("; ".join(texts))
