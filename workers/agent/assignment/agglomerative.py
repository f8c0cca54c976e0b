"""A device as a node of a model tree (agglomerative learning): the model stays, its logits leave.

Leaves train on their own data and on their parent's logits. The parent trains on the mean of its
children's logits (``fedcore.methods.agglomerative``). Each node keeps its model in the private
folder, one file per round. Imports torch.
"""

from __future__ import annotations

from pathlib import Path

from fedcore.errors import TrainingError, WireError
from fedcore.formats.frame_header import read_header
from fedcore.formats.logits_header import BRIDGE_KIND, MODEL_KIND, check_meta
from fedcore.methods.agglomerative.bridge_data import bridge_source
from fedcore.methods.agglomerative.node import Node
from fedcore.methods.agglomerative.node_model import STEM, write_note
from fedcore.methods.distillation.logits_frame import read_packed, write_packed
from fedcore.methods.distillation.packed_logits import PackedLogits
from fedcore.methods.round_files import LATEST_DRAW, RoundFiles
from fedcore.methods.session import Session, Update
from fedcore.spec.levels import level_specs
from fedcore.train.datasets import Source
from fedcore.train.telemetry import Hooks
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame
from workers.agent.assignment.assigned_work import AssignedWork

LEAF, PARENT = 0, 1  # levels of the tree
INITIAL_ROUND = (0, 0)  # key of the weights before any training


class NodeRunner:
    """This device's node in a job's tree; ``folder`` is the job's private folder."""

    def __init__(self, session: Session, folder: Path, work: AssignedWork, level: int) -> None:
        self.node = Node(
            level_specs(work.spec)[level], bridge_source(work.spec.distill, folder), session
        )
        self._work, self._level = work, level
        self._files = RoundFiles(folder, STEM)

    def train(
        self, source: Source | None, logits: PackedLogits | None, hooks: Hooks
    ) -> tuple[Update, Path]:
        """Train this round's model from the previous round's; returns its file too."""
        work, key = self._work, (self._work.round, 0)
        position = work.slot if self._level == LEAF else 0  # among the nodes of this level
        before = self._files.before(key) or self._initial_weights()
        after = self._files.path(key)
        update, _ = self.node.train((before, after), (work.round, position), source, logits, hooks)
        self._files.keep_only(key)
        return update, after

    def latest_weights(self) -> Path:
        """The model after the work's round."""
        return self._files.newest((self._work.round, LATEST_DRAW)) or self._initial_weights()

    def write_logits(self, weights: Path, out: Path) -> FrameInfo:
        """Write a model's logits on the bridge samples, as this round's update."""
        logits = self.node.bridge_logits(weights)
        return write_packed(out, logits, self.node.bridge.digest, self._work.update_meta)

    def write_model(self, weights: Path, out: Path) -> FrameInfo:
        """Write the node's model as the last round's update, for an operator to download."""
        frame = FrameReader(weights)
        meta = {**frame.meta, **self._work.update_meta, "kind": MODEL_KIND}
        return write_frame(out, {name: frame[name] for name in frame}, meta)

    def read_logits(self, path: Path) -> PackedLogits | None:
        """A frame's logits; None for the job's first artefact, which only names the bridge.

        Raises TrainingError where the frame names another bridge than this device has built.
        """
        header = read_header(path)
        try:
            check_meta(header, self.node.expected.meta)
        except WireError as error:
            raise TrainingError(
                f"this device builds other bridge samples than the server ({error}); "
                "install the same version of Edgewise and of transformers on both"
            ) from error
        return None if header.meta["kind"] == BRIDGE_KIND else read_packed(path, self.node.expected)

    def _initial_weights(self) -> Path:
        path = self._files.path(INITIAL_ROUND)
        self.node.begin(path)
        write_note(path.parent, self._work.spec, self._level)
        return path
