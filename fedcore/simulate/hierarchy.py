"""The tree of a simulated job: heads fold their clusters by the rules of a launched one.

Every head is there and folds at once: folding takes no virtual time. A parent without data is a
device that only folds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedcore.aggregation.flat_file import Shapes
from fedcore.aggregation.hierarchical import fold_cluster
from fedcore.aggregation.strategies import Strategy
from fedcore.aggregation.update_files import UpdateFile
from fedcore.errors import Fault, SpecError
from fedcore.rounds.clusters import inputs_of_fold, server_inputs, updates_from
from fedcore.rounds.types import AssignmentPhase, AssignmentState, RoundPolicy, RoundState, Task
from fedcore.spec.job import JobSpec
from fedcore.topology import Cluster, Roles, clusters, depth, device_faults, parents_of, shared_out

ANY = RoundPolicy(1, 1, 1.0, 1.0, 1)
Files = dict[tuple[str, Task], UpdateFile]


@dataclass(frozen=True)
class Gathered:
    """What reaches the server, what clusters made on the way, and the bytes on each level's links.

    ``levels``: into the server, into the heads below it, and so on.
    """

    updates: list[UpdateFile]
    made: list[UpdateFile]
    levels: tuple[int, ...]


class Hierarchy:
    """Who folds for whom among the devices of a simulation. Raises SpecError with every fault."""

    def __init__(
        self, spec: JobSpec, names: Sequence[str], strategy: Strategy | None = None
    ) -> None:
        self._spec, self._strategy = spec, strategy
        self._parents = _parents(spec, names)
        heads = sorted({*self._parents.values()} - set(names))
        self._slots = {name: slot for slot, name in enumerate((*names, *heads))}
        self.clusters = clusters(self._parents)

    def gather(
        self, updates: Sequence[tuple[str, UpdateFile]], shapes: Shapes, folder: Path
    ) -> Gathered:
        """Fold the devices' updates up the tree; clusters' updates are written into ``folder``."""
        if not self.clusters:
            return Gathered([update for _, update in updates], [], ())
        state = _round(tuple(name for name, _ in updates), self.clusters)
        files: Files = {(name, Task.TRAIN): update for name, update in updates}
        for cluster in self.clusters:
            found = _files(files, inputs_of_fold(state, cluster.head))
            if len(found) > 1:
                files[cluster.head, Task.FOLD] = self._fold(cluster.head, found, shapes, folder)
                state = _with_fold(state, cluster.head)
        made = [file for (_, task), file in files.items() if task is Task.FOLD]
        return Gathered(_files(files, server_inputs(state)), made, self._levels(state, files))

    def _fold(
        self, head: str, found: Sequence[UpdateFile], shapes: Shapes, folder: Path
    ) -> UpdateFile:
        path = folder / f"cluster-{self._slots[head]}.safetensors"
        meta = {"kind": "update"}
        fold_cluster(self._spec, shapes, found, meta, path, strategy=self._strategy)
        return UpdateFile(path, math.fsum(item.weight for item in found), self._slots[head])

    def _levels(self, state: RoundState, files: Files) -> tuple[int, ...]:
        found: dict[int, int] = {}
        for name in {*state.members, *(cluster.head for cluster in self.clusters)}:
            sent = sum(
                item.path.stat().st_size for item in _files(files, updates_from(state, name))
            )
            level = depth(self._parents, name)
            found[level] = found.get(level, 0) + sent
        return tuple(found[level] for level in sorted(found))


def _parents(spec: JobSpec, names: Sequence[str]) -> dict[str, str]:
    if spec.tree.auto:
        count = math.ceil(math.sqrt(len(names)))
        return shared_out(Roles(names, {f"aggregator-{number}" for number in range(count)}))
    parents = parents_of(spec.tree.parents)
    if faults := device_faults(parents, Roles(names, {*parents.values()})):
        raise SpecError([Fault("tree.parents", message) for message in faults])
    return parents


def _round(members: tuple[str, ...], found: tuple[Cluster, ...]) -> RoundState:
    done = tuple(AssignmentState(name, Task.TRAIN, 1, AssignmentPhase.REPORTED) for name in members)
    return RoundState(1, members, (), ANY, assignments=done, clusters=found)


def _with_fold(state: RoundState, head: str) -> RoundState:
    done = AssignmentState(head, Task.FOLD, 1, AssignmentPhase.REPORTED)
    return replace(state, assignments=(*state.assignments, done))


def _files(files: Files, items: Sequence[AssignmentState]) -> list[UpdateFile]:
    return [files[item.device, item.task] for item in items]
