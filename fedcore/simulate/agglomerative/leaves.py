"""Rounds of a tree reduced to its leaves, to compare them with other simulations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from fedcore.simulate.agglomerative.tree_results import TreeRound
from fedcore.simulate.agglomerative.tree_rounds import simulate_tree
from fedcore.simulate.results import OnEvent, RoundResult, SimulationEvent
from fedcore.spec.job import JobSpec
from fedcore.topology import parents_of
from fedcore.train.datasets import Source


def simulate_leaves(
    spec: JobSpec, devices: Mapping[str, Source], workdir: Path | str, on_event: OnEvent
) -> list[RoundResult]:
    """Run the tree of an agglomerative job and report the results of its devices.

    Loss and ROUGE are those of each device's model on its own validation part. Bytes are those of
    all links. The hash covers the weights of all nodes.
    """
    results: list[RoundResult] = []

    def listen(event: SimulationEvent) -> None:
        if isinstance(event.value, TreeRound):
            results.append(leaves_of(event.value))
            on_event(SimulationEvent("round", event.round_number, "", results[-1]))

    simulate_tree(spec, devices, workdir, listen, parents_of(spec.tree.parents))
    return results


def leaves_of(tree: TreeRound) -> RoundResult:
    """The results of the leaves in a round of the tree."""
    end = tree.levels[0]
    return RoundResult(
        number=tree.number,
        sha256=hashlib.sha256(json.dumps(sorted(tree.sha256.items())).encode()).hexdigest(),
        evaluations=end.evaluations,
        mean=end.mean,
        training=end.training,
        fold=None,
        bytes_up=tree.bytes_up,
        bytes_down=tree.bytes_down,
        seconds=tree.seconds,
    )
