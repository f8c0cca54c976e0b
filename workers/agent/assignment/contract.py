"""The interface between an assignment's runner and its trainer. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedcore.errors import EdgewiseError
from workers.agent.assignment.assigned_work import AssignedWork


class CannotDo(EdgewiseError):
    """This device can never do the assignment, for example because it lacks the dataset."""


@dataclass(frozen=True)
class Callbacks:
    """Progress and samples from a trainer to its runner, and the request to stop.

    ``sized`` gets the most examples that are trained at a time.
    """

    should_stop: Callable[[], bool]
    advance: Callable[[int, int], None]
    record: Callable[[Mapping[str, float]], None]
    sized: Callable[[int], None] = lambda _examples: None


@dataclass(frozen=True)
class Outcome:
    """A trainer's result. ``update`` is (SHA-256, bytes) of the frame it wrote, if any."""

    examples: int
    metrics: dict[str, Any]
    update: tuple[str, int] | None = None


@dataclass(frozen=True)
class Received:
    """Downloaded files: the global weights, and the server's state where it is shared."""

    weights: Path
    state: Path | None = None


class Trainer(Protocol):
    """Training, evaluation and folding. The only implementation that loads torch is trainer.py."""

    def train(
        self, work: AssignedWork, received: Received, update: Path, callbacks: Callbacks
    ) -> Outcome:
        """Train on the received weights; write the update's frame to ``update``."""

    def evaluate(self, work: AssignedWork, weights: Path, callbacks: Callbacks) -> Outcome:
        """Evaluate ``weights`` on this device's validation split."""

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, callbacks: Callbacks
    ) -> Outcome:
        """Fold the fold request's updates, in its order, into the frame ``update``."""
