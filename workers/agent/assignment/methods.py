"""A device's part of a job, by federated method: what it trains, keeps and uploads.

Imports torch: for the training process alone.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcore.aggregation.hierarchical import fold_cluster
from fedcore.aggregation.update_files import UpdateFile
from fedcore.methods.contract import DeviceState
from fedcore.methods.distillation.logits_frame import read_packed
from fedcore.methods.distillation.packed_logits import mean
from fedcore.methods.session import Session, Update
from fedcore.spec.options.method import Exchange
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from fedcore.train.telemetry import Hooks
from fedcore.wire.frame import FrameInfo
from workers.agent.assignment import error_feedback, private_folders
from workers.agent.assignment.agglomerative import LEAF, PARENT, NodeRunner
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Received


@dataclass(frozen=True)
class Workspace:
    """What a method works with; the folders hold one folder per job."""

    session: Session
    feedback_dir: Path
    private_dir: Path


class MethodRunner(ABC):
    """One method's tasks on a device. Frames are written to ``update``."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @abstractmethod
    def train(
        self, work: AssignedWork, received: Received, source: Source, update: Path, hooks: Hooks
    ) -> tuple[Update, FrameInfo]:
        """Train for one round; returns the result and the frame to upload."""

    @abstractmethod
    def evaluate(
        self, work: AssignedWork, weights: Path, source: Source, hooks: Hooks
    ) -> Evaluation:
        """Evaluate the round's model on the device's validation split."""

    @abstractmethod
    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, hooks: Hooks
    ) -> tuple[dict[str, Any], FrameInfo]:
        """Fold the fold request's updates into one frame; returns metrics and the frame."""

    def _private_folder(self, work: AssignedWork) -> Path:
        return private_folders.folder_of(self._workspace.private_dir, work)


class Averaging(MethodRunner):
    """Trains the server's weights and uploads the difference; differences are averaged."""

    def train(
        self, work: AssignedWork, received: Received, source: Source, update: Path, hooks: Hooks
    ) -> tuple[Update, FrameInfo]:
        state = DeviceState(self._private_folder(work), received.state)
        result = self._workspace.session.train(
            work.spec, received.weights, source, work.round, work.slot, hooks, work.draw, state
        )
        frame = error_feedback.write(work, result.tensors, update, self._workspace.feedback_dir)
        return result, frame

    def evaluate(
        self, work: AssignedWork, weights: Path, source: Source, hooks: Hooks
    ) -> Evaluation:
        state = DeviceState(self._private_folder(work))
        session = self._workspace.session
        return session.evaluate(work.spec, weights, source, hooks, work.round, state)

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, hooks: Hooks
    ) -> tuple[dict[str, Any], FrameInfo]:
        request = work.fold_request
        assert request is not None, "a fold without a fold request"
        began = time.monotonic()
        files = [
            UpdateFile(path, item.examples, item.slot)
            for path, item in zip(updates, request.updates, strict=True)
        ]
        frame = fold_cluster(work.spec, request.shapes, files, work.update_meta, update)
        return {"seconds": time.monotonic() - began, "updates": len(files)}, frame


class Agglomerative(MethodRunner):
    """Models stay on their devices and learn from each other's logits on the bridge samples."""

    def train(
        self, work: AssignedWork, received: Received, source: Source, update: Path, hooks: Hooks
    ) -> tuple[Update, FrameInfo]:
        node = self._node(work, LEAF)
        result, weights = node.train(source, node.read_logits(received.weights), hooks)
        return result, node.write_logits(weights, update)

    def evaluate(
        self, work: AssignedWork, weights: Path, source: Source, hooks: Hooks
    ) -> Evaluation:
        node = self._node(work, LEAF)
        return node.node.evaluate(node.latest_weights(), source, hooks)

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, hooks: Hooks
    ) -> tuple[dict[str, Any], FrameInfo]:
        """Train the parent on the mean of its children's logits, weighted by their examples."""
        assert work.fold_request is not None, "a fold without a fold request"
        node = self._node(work, PARENT)
        logits = [read_packed(path, node.node.expected) for path in updates]
        weights = [float(item.examples) for item in work.fold_request.updates]
        teacher = logits[0] if len(logits) < 2 else mean(logits, weights)
        result, model = node.train(None, teacher, hooks)
        last_round = work.round >= work.spec.rounds
        frame = node.write_model(model, update) if last_round else node.write_logits(model, update)
        scores = {}
        if work.spec.evaluation.due(work.round, work.spec.rounds):
            values = node.node.evaluate(model, None, hooks).values()
            scores = {f"bridge_{name}": value for name, value in values.items()}
        return {**asdict(result.summary), **scores, "updates": len(logits)}, frame

    def _node(self, work: AssignedWork, level: int) -> NodeRunner:
        return NodeRunner(self._workspace.session, self._private_folder(work), work, level)


METHOD_RUNNERS: Mapping[Exchange, type[MethodRunner]] = {
    Exchange.UPDATES: Averaging,
    Exchange.LOGITS: Agglomerative,
}
