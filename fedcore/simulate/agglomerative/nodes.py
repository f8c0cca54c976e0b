"""The nodes of one level of a simulated tree: one model file each, one session for all."""

from __future__ import annotations

from pathlib import Path

from fedcore.formats.logits_header import ExpectedLogits
from fedcore.methods.agglomerative.node import Node
from fedcore.methods.distillation.packed_logits import PackedLogits
from fedcore.methods.session import Session
from fedcore.spec.job import JobSpec
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from fedcore.train.loop import TrainSummary
from fedcore.train.tokenization import Prepared


class NodeLevel:
    """Nodes with one model each, of the same architecture."""

    def __init__(self, spec: JobSpec, bridge: Source, folder: Path, cache: Path) -> None:
        self.spec, self._folder = spec, folder
        self.node = Node(spec, bridge, Session(cache, spec.threads))
        self.expected: ExpectedLogits = self.node.expected
        self._sha256: dict[int, str] = {}

    def begin(self, slot: int) -> None:
        """Write a node's first weights: the same on all nodes of a level."""
        self._sha256[slot] = self.node.begin(self._weights(slot)).sha256

    def prepare(self, source: Source | None) -> Prepared:
        """The examples a node trains on: its own, or the bridge (None)."""
        return self.node.prepare(source)

    def train(
        self, slot: int, number: int, source: Source | None, teacher: PackedLogits | None
    ) -> TrainSummary:
        """One round of a node; ``teacher``: its teachers' logits on the bridge."""
        weights = self._weights(slot), self._weights(slot)
        update, frame = self.node.train(weights, (number, slot), source, teacher)
        self._sha256[slot] = frame.sha256
        return update.summary

    def bridge_logits(self, slot: int) -> PackedLogits:
        """A node's logits on the bridge."""
        return self.node.bridge_logits(self._weights(slot))

    def evaluate(self, slot: int, source: Source | None) -> Evaluation:
        """On the node's own validation part, or on that of the bridge (None)."""
        return self.node.evaluate(self._weights(slot), source)

    def sha256(self, slot: int) -> str:
        return self._sha256[slot]

    def _weights(self, slot: int) -> Path:
        return self._folder / f"{slot}.safetensors"
