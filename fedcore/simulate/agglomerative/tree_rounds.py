"""Rounds of agglomerative training: a tree of models that distil over bridge samples.

A round goes up the tree. Leaves train on their own examples and the bridge, with their parent's
logits of the round before. Each node then sends its logits on the bridge to its parent, which
trains on the bridge with the mean of its children's logits. No weights and no text travel.

Our choices where arXiv 2312.11489 leaves it open: every node trains once a round, from the leaves
up. A parent sends the same logits to all its children, with the top k and temperature of those
upwards. Children are weighted by the examples below them. An inner node has one teacher, half the
mean of its children and half its parent. In round 1 no parent has trained, so none is a teacher.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from fedcore.errors import DataError
from fedcore.methods.agglomerative.bridge_data import bridge_source
from fedcore.methods.agglomerative.node import check_bridges, vocabulary_of
from fedcore.methods.distillation.logits_frame import read_packed, write_packed
from fedcore.methods.distillation.packed_logits import PackedLogits, mean
from fedcore.simulate.agglomerative.nodes import NodeLevel
from fedcore.simulate.agglomerative.tree_results import LevelResult, TreeLink, TreeRound
from fedcore.simulate.results import OnEvent, SimulationEvent, ignore
from fedcore.spec.job import JobSpec
from fedcore.spec.levels import grown, level_names, level_specs, planted
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from fedcore.train.loop import TrainSummary


def simulate_tree(
    spec: JobSpec,
    devices: Mapping[str, Source],
    workdir: Path | str,
    on_event: OnEvent | None = None,
    parents: Mapping[str, str] | None = None,
) -> list[TreeRound]:
    """Run every round of a job whose method is agglomerative; devices are the leaves.

    ``parents`` (child -> parent) defines the tree; by default ``distill`` does. Raises SpecError
    for an invalid tree or too large a ``top_k``, ModelError for different vocabularies, DataError
    for a bridge without samples.
    """
    return _Tree(spec, devices, Path(workdir), on_event or ignore, parents or {}).run()


class _Tree:
    def __init__(
        self,
        spec: JobSpec,
        devices: Mapping[str, Source],
        workdir: Path,
        on_event: OnEvent,
        parents: Mapping[str, str],
    ) -> None:
        self.spec, self.devices, self.workdir, self.on_event = spec, devices, workdir, on_event
        leaves = sorted(spec.participation.devices or devices)
        if missing := [name for name in leaves if name not in devices]:
            raise DataError(f"no data for {', '.join(missing)}; name devices that exist")
        above = len(spec.distill.models)
        if parents:
            self.tree = planted(leaves, above, parents)
        else:
            self.tree = grown(leaves, above, spec.distill.children)
        specs = level_specs(spec)
        vocabulary_of(specs)
        bridge = bridge_source(spec.distill, workdir)
        self.levels = [
            NodeLevel(item, bridge, workdir / f"level-{number}", workdir / "cache")
            for number, item in enumerate(specs)
        ]
        check_bridges(specs, [level.node.bridge for level in self.levels])
        self.names = level_names(len(specs))
        self.places = {
            name: (level, slot)
            for level, row in enumerate(self.tree.rows)
            for slot, name in enumerate(row)
        }
        self.weights: dict[str, int] = {}
        self.moved_bytes: dict[str, dict[str, int]] = {}

    def run(self) -> list[TreeRound]:
        began = time.perf_counter()
        for name, (level, slot) in self.places.items():
            self.levels[level].begin(slot)
            below = self.tree.children(name)
            self.weights[name] = (
                sum(self.weights[child] for child in below)
                if below
                else self.levels[level].prepare(self.devices[name]).examples
            )
        results = [self._result(0, {}, began)]
        for number in range(1, self.spec.rounds + 1):
            began = time.perf_counter()
            training = self._train(number)
            results.append(self._result(number, training, began))
        return results

    def _train(self, number: int) -> dict[str, TrainSummary]:
        """Train every node once, from the leaves up, and write its logits."""
        self.moved_bytes = {name: {"up": 0, "down": 0} for name in self.tree.parents}
        training: dict[str, TrainSummary] = {}
        for name, (level, slot) in self.places.items():
            nodes, source = self.levels[level], self.devices.get(name)
            teacher = self._teacher(name, number)
            training[name] = nodes.train(slot, number, source, teacher)
            logits = nodes.bridge_logits(slot)
            write_packed(self._logits_file(name), logits, nodes.expected.bridge)
            self.on_event(SimulationEvent("trained", number, name, training[name]))
        return training

    def _teacher(self, name: str, number: int) -> PackedLogits | None:
        """A node's teacher: its children's mean, its parent, or half of each."""
        children = self.tree.children(name)
        logits = [self._read(child, name, child, "up") for child in children]
        weights = [float(self.weights[child]) for child in children]
        parent = self.tree.parents.get(name)
        if parent and number > 1:
            logits.append(self._read(parent, name, name, "down"))
            weights.append(sum(weights) or 1.0)
        if len(logits) < 2:
            return logits[0] if logits else None
        return mean(logits, weights)

    def _read(self, sender: str, receiver: str, link: str, way: str) -> PackedLogits:
        """Read the sender's frame for the receiver and count its bytes on the link."""
        path = self._logits_file(sender)
        self.moved_bytes[link][way] += path.stat().st_size
        level, _ = self.places[receiver]
        return read_packed(path, self.levels[level].expected)

    def _logits_file(self, name: str) -> Path:
        level, slot = self.places[name]
        return self.workdir / f"level-{level}" / f"{slot}-says.safetensors"

    def _result(self, number: int, training: Mapping[str, TrainSummary], began: float) -> TreeRound:
        due = self.spec.evaluation.due(number, self.spec.rounds)
        levels: list[LevelResult] = []
        for title, nodes, row in zip(self.names, self.levels, self.tree.rows, strict=True):
            evaluations: dict[str, Evaluation] = {}
            for name in row if due else ():
                slot = self.places[name][1]
                evaluations[name] = nodes.evaluate(slot, self.devices.get(name))
                self.on_event(SimulationEvent("evaluated", number, name, evaluations[name]))
            trained = {name: training[name] for name in row if name in training}
            levels.append(LevelResult(title, nodes.spec.model.name, evaluations, trained))
        links = tuple(
            TreeLink(name, self.tree.parents[name], way["up"], way["down"])
            for name, way in self.moved_bytes.items()
        )
        sha256 = {
            name: self.levels[level].sha256(slot) for name, (level, slot) in self.places.items()
        }
        result = TreeRound(number, tuple(levels), links, sha256, time.perf_counter() - began)
        self.on_event(SimulationEvent("round", number, "", result))
        return result
