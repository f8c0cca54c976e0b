"""The rounds of a tree of models that teach each other over bridge samples.

A round climbs the tree. Leaves train on their own examples and the bridge, with what their parent
said there in the round before; each node then sends what it says on the bridge to its parent, and
the parent learns the bridge from the mean of its children. No weights travel, and no text.

Our choices where arXiv 2312.11489 leaves it open: every node trains once a round, from the leaves
up; a parent says the same to all its children, with top-k and temperature as upwards; children
count by the examples below them; a node between has one teacher, half the mean of its children and
half its parent. In round 1 no parent has learned anything, so none is listened to.
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
from fedcore.simulate.results import OnEvent, SimulationEvent
from fedcore.spec.job import JobSpec
from fedcore.spec.levels import Levels, grown, level_names, level_specs, planted
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from fedcore.train.loop import TrainSummary
from fedcore.train.telemetry import Hooks


def simulate_tree(
    spec: JobSpec,
    devices: Mapping[str, Source],
    workdir: Path | str,
    on_event: OnEvent | None = None,
    parents: Mapping[str, str] | None = None,
) -> list[TreeRound]:
    """Run every round of a job whose method is agglomerative; devices are the leaves.

    ``parents`` (child -> parent) says the tree; without it one is grown as ``distill`` says.
    Raises SpecError for what is no tree and for more tokens than there are, ModelError for models
    of unlike vocabularies, DataError for a bridge without samples.
    """
    return _Tree(spec, devices, Path(workdir), on_event or _ignore, parents or {}).run()


def _ignore(event: SimulationEvent) -> None:
    del event


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
        self.tree = _tree(spec, devices, parents)
        specs = level_specs(spec)
        vocabulary_of(specs)
        bridge = bridge_source(spec.distill, workdir)
        self.levels = [
            NodeLevel(item, bridge, workdir / f"level-{number}", workdir / "cache", Hooks())
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
        self.moved: dict[str, dict[str, int]] = {}

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
            results.append(self._round(number))
        return results

    def _round(self, number: int) -> TreeRound:
        began = time.perf_counter()
        self.moved = {name: {"up": 0, "down": 0} for name in self.tree.parents}
        training: dict[str, TrainSummary] = {}
        for name, (level, slot) in self.places.items():
            nodes, source = self.levels[level], self.devices.get(name)
            told = self._teacher(name, number)
            training[name] = nodes.train(slot, number, source, told)
            write_packed(self._said(name), nodes.speak(slot), nodes.expected.bridge)
            self.on_event(SimulationEvent("trained", number, name, training[name]))
        return self._result(number, training, began)

    def _teacher(self, name: str, number: int) -> PackedLogits | None:
        """What a node learns from: its children's mean, its parent, or half of each."""
        children = self.tree.children(name)
        told = [self._read(child, name, child, "up") for child in children]
        weights = [float(self.weights[child]) for child in children]
        parent = self.tree.parents.get(name)
        if parent and number > 1:
            told.append(self._read(parent, name, name, "down"))
            weights.append(sum(weights) or 1.0)
        if len(told) < 2:
            return told[0] if told else None
        return mean(told, weights)

    def _read(self, speaker: str, listener: str, link: str, way: str) -> PackedLogits:
        """The speaker's frame as the listener reads it; its bytes are counted on the link."""
        path = self._said(speaker)
        self.moved[link][way] += path.stat().st_size
        level, _ = self.places[listener]
        return read_packed(path, self.levels[level].expected)

    def _said(self, name: str) -> Path:
        level, slot = self.places[name]
        return self.workdir / f"level-{level}" / f"{slot}-says.safetensors"

    def _result(self, number: int, training: Mapping[str, TrainSummary], began: float) -> TreeRound:
        due = self.spec.evaluation.due(number, self.spec.rounds)
        levels = tuple(
            LevelResult(
                self.names[level],
                self.levels[level].spec.model.name,
                self._evaluate(number, row) if due else {},
                {name: training[name] for name in row if name in training},
            )
            for level, row in enumerate(self.tree.rows)
        )
        links = tuple(
            TreeLink(name, self.tree.parents[name], way["up"], way["down"])
            for name, way in self.moved.items()
        )
        sha256 = {
            name: self.levels[level].sha256(slot) for name, (level, slot) in self.places.items()
        }
        result = TreeRound(number, levels, links, sha256, time.perf_counter() - began)
        self.on_event(SimulationEvent("round", number, "", result))
        return result

    def _evaluate(self, number: int, row: tuple[str, ...]) -> dict[str, Evaluation]:
        found = {}
        for name in row:
            level, slot = self.places[name]
            found[name] = self.levels[level].evaluate(slot, self.devices.get(name))
            self.on_event(SimulationEvent("evaluated", number, name, found[name]))
        return found


def _tree(spec: JobSpec, devices: Mapping[str, Source], parents: Mapping[str, str]) -> Levels:
    leaves = sorted(spec.participation.devices or devices)
    if missing := [name for name in leaves if name not in devices]:
        raise DataError(f"no data for {', '.join(missing)}; name devices that exist")
    above = len(spec.distill.models)
    if parents:
        return planted(leaves, above, parents)
    return grown(leaves, above, spec.distill.children)
