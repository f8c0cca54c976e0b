"""How a device does its part of a job, by method: what it starts from, keeps and sends.

Imports torch: for the training process alone.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcore.aggregation.hierarchical import fold_cluster
from fedcore.aggregation.update_files import UpdateFile
from fedcore.methods.contract import DeviceState
from fedcore.methods.session import Session, Update
from fedcore.spec.options.distill import AGGLOMERATIVE
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from fedcore.train.telemetry import Hooks
from fedcore.wire.frame import FrameInfo
from workers.agent.assignment import agglomerative, error_feedback, private_folders
from workers.agent.assignment.assignment import AssignedWork, Received


@dataclass(frozen=True)
class Workspace:
    """What a way works with; the folders hold one of each job."""

    session: Session
    feedback_dir: Path
    private_dir: Path


class MethodRunner(ABC):
    """One method's part on a device. Frames are written to ``update``."""

    def __init__(self, desk: Workspace) -> None:
        self._desk = desk

    @abstractmethod
    def train(
        self, work: AssignedWork, received: Received, source: Source, update: Path, hooks: Hooks
    ) -> tuple[Update, FrameInfo]:
        """A round of training; what was found and the frame that goes up."""

    @abstractmethod
    def evaluate(
        self, work: AssignedWork, weights: Path, source: Source, hooks: Hooks
    ) -> Evaluation:
        """What the device makes of its validation part after the round."""

    @abstractmethod
    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, hooks: Hooks
    ) -> tuple[dict[str, Any], FrameInfo]:
        """One frame of those of the work's cluster, and what there is to tell of it."""

    def _folder(self, work: AssignedWork) -> Path:
        return private_folders.folder_of(self._desk.private_dir, work)


class Averaging(MethodRunner):
    """The server's weights are trained, their difference goes up, and differences are averaged."""

    def train(
        self, work: AssignedWork, received: Received, source: Source, update: Path, hooks: Hooks
    ) -> tuple[Update, FrameInfo]:
        own = DeviceState(self._folder(work), received.state)
        found = self._desk.session.train(
            work.spec, received.weights, source, work.round, work.slot, hooks, work.draw, own
        )
        return found, error_feedback.write(work, found.tensors, update, self._desk.feedback_dir)

    def evaluate(
        self, work: AssignedWork, weights: Path, source: Source, hooks: Hooks
    ) -> Evaluation:
        own = DeviceState(self._folder(work))
        return self._desk.session.evaluate(work.spec, weights, source, hooks, work.round, own)

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, hooks: Hooks
    ) -> tuple[dict[str, Any], FrameInfo]:
        cluster = work.cluster
        assert cluster is not None, "a fold without a cluster"
        began = time.monotonic()
        files = [
            UpdateFile(path, part.examples, part.slot)
            for path, part in zip(updates, cluster.parts, strict=True)
        ]
        frame = fold_cluster(work.spec, cluster.shapes, files, work.update_meta, update)
        return {"seconds": time.monotonic() - began, "updates": len(files)}, frame


class Agglomerative(MethodRunner):
    """Models stay where they are, and teach each other by what they say on shared text."""

    def train(
        self, work: AssignedWork, received: Received, source: Source, update: Path, hooks: Hooks
    ) -> tuple[Update, FrameInfo]:
        node = self._speaker(work, agglomerative.LEAF)
        return agglomerative.learn(node, received.weights, source, update, hooks)

    def evaluate(
        self, work: AssignedWork, weights: Path, source: Source, hooks: Hooks
    ) -> Evaluation:
        return agglomerative.evaluate(self._speaker(work, agglomerative.LEAF), source, hooks)

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, hooks: Hooks
    ) -> tuple[dict[str, Any], FrameInfo]:
        return agglomerative.fold(
            self._speaker(work, agglomerative.PARENT), work, updates, update, hooks
        )

    def _speaker(self, work: AssignedWork, level: int) -> agglomerative.NodeRunner:
        return agglomerative.NodeRunner(self._desk.session, self._folder(work), work, level)


WAYS: Mapping[str, type[MethodRunner]] = {
    AGGLOMERATIVE: Agglomerative
}  # of methods that do not average
