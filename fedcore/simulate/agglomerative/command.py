"""``python -m fedcore.simulate --method agglomerative``: run a tree and print its rounds."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.simulate.agglomerative.tree_results import TreeRound
from fedcore.simulate.agglomerative.tree_rounds import simulate_tree
from fedcore.simulate.federation import simulate
from fedcore.simulate.fleet_options import FleetOptions
from fedcore.simulate.results import RoundResult, SimulationEvent
from fedcore.spec.job import JobSpec
from fedcore.spec.options.tree import TreeSpec
from fedcore.topology import parents_of
from fedcore.train.datasets import Source

ROW = "{:>5}  {:7.7} {:24.24} {:>8} {:>8} {:>8} {:>8} {:>9}"
SIDE = "{:>5}  {:>14} {:>14} {:>14} {:>14}"
MEASURES = ("rouge1", "rouge2", "rougeL")


def run_tree(
    spec: JobSpec, devices: Mapping[str, Source], workdir: Path, compare: bool = True
) -> dict[str, Any]:
    """Run the tree and, with ``compare``, its leaves under flat averaging.

    Print both and return them as JSON values. Flat averaging trains the leaves' model with the same
    examples, steps and seed.
    """
    options = spec.distill
    chain = ", ".join(options.models)
    print(f"{spec.model.name} below {chain}; bridge {options.bridge}, T {options.temperature:g}")
    print(ROW.format("round", "level", "node", "loss", *MEASURES, "examples"))
    parents = parents_of(spec.tree.parents)
    rounds = simulate_tree(spec, devices, workdir, _print_event, parents)
    flat: list[RoundResult] = []
    if compare:
        flat_spec = replace(spec, method=replace(spec.method, name="none"), tree=TreeSpec())
        flat = simulate(flat_spec, devices, workdir / "flat")
    _print_summary(rounds, flat)
    return {
        "spec": spec.to_dict(),
        "rounds": [item.to_dict() for item in rounds],
        "flat": [item.to_dict() for item in flat],
    }


def refuse_fleet(fleet: FleetOptions) -> None:
    """Raise SpecError for fleet options: a tree has no virtual clock."""
    if fleet != FleetOptions():
        message = "agglomerative rounds have no virtual clock; leave fleet, speeds and link out"
        raise SpecError([Fault("--fleet", message)])


def _print_event(event: SimulationEvent) -> None:
    if not isinstance(event.value, TreeRound):
        return
    for level in event.value.levels:
        count = sum(item.examples for item in level.evaluations.values())
        rows = [(name, vars(item), item.examples) for name, item in level.evaluations.items()]
        if len(rows) > 1:
            rows.append(("weighted mean", dict(level.mean), count))
        for name, scores, examples in rows:
            rouge = [f"{scores[key]:.2f}" for key in MEASURES]
            loss = f"{scores['loss']:.4f}"
            print(ROW.format(event.round_number, level.name, name, loss, *rouge, examples))
    sys.stdout.flush()


def _print_summary(rounds: Sequence[TreeRound], flat: Sequence[RoundResult]) -> None:
    up, down = (sum(getattr(item, way) for item in rounds) for way in ("bytes_up", "bytes_down"))
    links = len(rounds[-1].links)
    print(f"{links} links: {up / 1e6:.2f} MB up, {down / 1e6:.2f} MB down, logits alone")
    for link in rounds[-1].links:
        print(
            f"  {link.child} -> {link.parent}: {link.bytes_up / 1e6:.3f} MB up, "
            f"{link.bytes_down / 1e6:.3f} MB down in round {rounds[-1].number}"
        )
    if not flat:
        return
    up, down = (sum(getattr(item, way) for item in flat) for way in ("bytes_up", "bytes_down"))
    print(f"flat averaging: {up / 1e6:.2f} MB up, {down / 1e6:.2f} MB down, weights")
    print("the devices on their own validation parts, weighted mean:")
    print(SIDE.format("round", "loss, tree", "loss, flat", "rougeL, tree", "rougeL, flat"))
    for tree, averaged in zip(rounds, flat, strict=True):
        means = tree.levels[0].mean, averaged.mean
        if all(means):
            losses = [f"{mean['loss']:.4f}" for mean in means]
            print(SIDE.format(tree.number, *losses, *(f"{mean['rougeL']:.2f}" for mean in means)))
