"""Hierarchical aggregation in a simulation: heads fold their clusters as in a launched job.

Every head is online, and folding takes no virtual time. A parent without data is a device that only
folds.
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
from fedcore.topology import Roles, clusters, depth, device_faults, parents_of, shared_out

ANY = RoundPolicy(1, 1, 1.0, 1.0, 1)
Files = dict[tuple[str, Task], UpdateFile]


@dataclass(frozen=True)
class Gathered:
    """The server's inputs, the updates that clusters wrote, and the bytes on each level's links.

    ``levels``: into the server, into the heads below it, and so on.
    """

    updates: list[UpdateFile]
    cluster_updates: list[UpdateFile]
    levels: tuple[int, ...]


class Hierarchy:
    """Assignment of devices to heads in a simulation. Raises SpecError with every fault."""

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
        members = tuple(name for name, _ in updates)
        reports = tuple(_reported(name, Task.TRAIN) for name in members)
        state = RoundState(1, members, (), ANY, assignments=reports, clusters=self.clusters)
        files: Files = {(name, Task.TRAIN): update for name, update in updates}
        for cluster in self.clusters:
            inputs = _files(files, inputs_of_fold(state, cluster.head))
            if len(inputs) > 1:
                slot = self._slots[cluster.head]
                path = folder / f"cluster-{slot}.safetensors"
                meta = {"kind": "update"}
                fold_cluster(self._spec, shapes, inputs, meta, path, strategy=self._strategy)
                weight = math.fsum(item.weight for item in inputs)
                files[cluster.head, Task.FOLD] = UpdateFile(path, weight, slot)
                reports = (*state.assignments, _reported(cluster.head, Task.FOLD))
                state = replace(state, assignments=reports)
        folded = [file for (_, task), file in files.items() if task is Task.FOLD]
        bytes_of: dict[int, int] = {}  # by level
        for name in {*state.members, *(cluster.head for cluster in self.clusters)}:
            level = depth(self._parents, name)
            sent = _files(files, updates_from(state, name))
            bytes_of[level] = bytes_of.get(level, 0) + sum(
                item.path.stat().st_size for item in sent
            )
        levels = tuple(bytes_of[level] for level in sorted(bytes_of))
        return Gathered(_files(files, server_inputs(state)), folded, levels)


def _parents(spec: JobSpec, names: Sequence[str]) -> dict[str, str]:
    if spec.tree.auto:
        count = math.ceil(math.sqrt(len(names)))
        return shared_out(Roles(names, {f"aggregator-{number}" for number in range(count)}))
    parents = parents_of(spec.tree.parents)
    if faults := device_faults(parents, Roles(names, {*parents.values()})):
        raise SpecError([Fault("tree.parents", message) for message in faults])
    return parents


def _reported(device: str, task: Task) -> AssignmentState:
    return AssignmentState(device, task, 1, AssignmentPhase.REPORTED)


def _files(files: Files, items: Sequence[AssignmentState]) -> list[UpdateFile]:
    return [files[item.device, item.task] for item in items]
