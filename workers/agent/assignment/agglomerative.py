"""A device as a node of a tree of models: its model stays here, what it says on the bridge leaves.

Leaves train, the parent folds: it learns from what its children say
(``fedcore.methods.agglomerative``). Each keeps its model in the private folder, a file for each
round. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedcore.errors import TrainingError, WireError
from fedcore.formats.frame_header import read_header
from fedcore.formats.logits_header import BRIDGE_KIND, MODEL_KIND, check_meta
from fedcore.methods.agglomerative.bridge_data import bridge_source
from fedcore.methods.agglomerative.node import Node
from fedcore.methods.agglomerative.node_model import STEM, write_note
from fedcore.methods.distillation.logits_frame import read_packed, write_packed
from fedcore.methods.distillation.packed_logits import PackedLogits, mean
from fedcore.methods.round_files import LATEST_DRAW, RoundFiles
from fedcore.methods.session import Session, Update
from fedcore.spec.levels import level_specs
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from fedcore.train.telemetry import Hooks
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame
from workers.agent.assignment.assignment import AssignedWork

LEAF, PARENT = 0, 1  # levels
FIRST = (0, 0)  # the file of the weights before any training


class NodeRunner:
    """This device's node of a job; ``folder`` is the job's private one."""

    def __init__(self, session: Session, folder: Path, work: AssignedWork, level: int) -> None:
        self.node = Node(
            level_specs(work.spec)[level], bridge_source(work.spec.distill, folder), session
        )
        self._work, self._level = work, level
        self._files = RoundFiles(folder, STEM)

    def learn(
        self, source: Source | None, told: PackedLogits | None, hooks: Hooks
    ) -> tuple[Update, Path]:
        """Train this round's model from that of the round before; returns its file too."""
        work, key = self._work, (self._work.round, 0)
        place = work.slot if self._level == LEAF else 0  # among the nodes of its level
        before, after = self._files.before(key) or self._begin(), self._files.path(key)
        update, _ = self.node.train((before, after), (work.round, place), source, told, hooks)
        self._files.keep_only(key)
        return update, after

    def newest(self) -> Path:
        """The model as it is after the work's round."""
        return self._files.newest((self._work.round, LATEST_DRAW)) or self._begin()

    def say(self, weights: Path, out: Path) -> FrameInfo:
        """Write what a model says on the bridge, as this round's update."""
        told = self.node.bridge_logits(weights)
        return write_packed(out, told, self.node.bridge.digest, self._work.update_meta)

    def heard(self, path: Path) -> PackedLogits | None:
        """What a frame says; None for the job's first artefact, which only names the bridge.

        Raises TrainingError where another bridge is meant than the one that is made here.
        """
        header = read_header(path)
        try:
            check_meta(header, self.node.expected.meta)
        except WireError as error:
            raise TrainingError(
                f"this device makes other bridge samples than the server ({error}); "
                "install the same version of Edgewise and of transformers on both"
            ) from error
        return None if header.meta["kind"] == BRIDGE_KIND else read_packed(path, self.node.expected)

    def _begin(self) -> Path:
        path = self._files.path(FIRST)
        self.node.begin(path)
        write_note(path.parent, self._work.spec, self._level)
        return path


def learn(
    speaker: NodeRunner, received: Path, source: Source, update: Path, hooks: Hooks
) -> tuple[Update, FrameInfo]:
    """A leaf's round: from its own text, and what its parent said in the round before."""
    found, weights = speaker.learn(source, speaker.heard(received), hooks)
    return found, speaker.say(weights, update)


def evaluate(speaker: NodeRunner, source: Source, hooks: Hooks) -> Evaluation:
    """A leaf's own model on its own validation part."""
    return speaker.node.evaluate(speaker.newest(), source, hooks)


def fold(
    speaker: NodeRunner, work: AssignedWork, updates: Sequence[Path], update: Path, hooks: Hooks
) -> tuple[dict[str, Any], FrameInfo]:
    """The parent's round: from the mean of its children, who count by their examples."""
    assert work.cluster is not None, "a fold without a cluster"
    told = [read_packed(path, speaker.node.expected) for path in updates]
    weights = [float(part.examples) for part in work.cluster.parts]
    found, model = speaker.learn(None, told[0] if len(told) < 2 else mean(told, weights), hooks)
    last = work.round >= work.spec.rounds
    frame = _sent(model, work, update) if last else speaker.say(model, update)
    measured = {}
    if work.spec.evaluation.due(work.round, work.spec.rounds):
        values = speaker.node.evaluate(model, None, hooks).values()
        measured = {f"bridge_{name}": value for name, value in values.items()}
    return {**asdict(found.summary), **measured, "updates": len(told)}, frame


def _sent(model: Path, work: AssignedWork, out: Path) -> FrameInfo:
    """The parent's model as the last round's update, for somebody to take home."""
    frame = FrameReader(model)
    meta = {**frame.meta, **work.update_meta, "kind": MODEL_KIND}
    return write_frame(out, {name: frame[name] for name in frame}, meta)
