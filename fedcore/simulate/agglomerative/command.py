"""What ``python -m fedcore.simulate --method agglomerative`` runs and prints."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.simulate.agglomerative.tree_results import LevelResult, TreeRound
from fedcore.simulate.agglomerative.tree_rounds import simulate_tree
from fedcore.simulate.federation import RoundResult, simulate
from fedcore.simulate.fleet_options import FleetOptions
from fedcore.simulate.results import SimulationEvent
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
    """Run the tree and, where asked, its leaves averaged flat; print both; return them as JSON.

    Flat: plain averaging of the leaves' model, with the same examples, steps and seed.
    """
    options = spec.distill
    chain = ", ".join(options.models)
    print(f"{spec.model.name} below {chain}; bridge {options.bridge}, T {options.temperature:g}")
    print(ROW.format("round", "level", "node", "loss", *MEASURES, "examples"))
    parents = parents_of(spec.tree.parents)
    rounds = simulate_tree(spec, devices, workdir, _print_event, parents)
    flat = _flat(spec, devices, workdir / "flat") if compare else []
    _print_summary(rounds, flat)
    return {
        "spec": spec.to_dict(),
        "rounds": [item.to_dict() for item in rounds],
        "flat": [item.to_dict() for item in flat],
    }


def refuse_fleet(fleet: FleetOptions) -> None:
    """Raise SpecError where a fleet was described: a tree has no virtual clock."""
    if fleet != FleetOptions():
        message = "agglomerative rounds have no virtual clock; leave fleet, speeds and link out"
        raise SpecError([Fault("--fleet", message)])


def _flat(spec: JobSpec, devices: Mapping[str, Source], workdir: Path) -> list[RoundResult]:
    plain = replace(spec, method=replace(spec.method, name="none"), tree=TreeSpec())
    return simulate(plain, devices, workdir)


def _print_event(event: SimulationEvent) -> None:
    if not isinstance(event.value, TreeRound):
        return
    for level in event.value.levels:
        _print_level(event.round_number, level)
    sys.stdout.flush()


def _print_level(number: int, level: LevelResult) -> None:
    count = sum(item.examples for item in level.evaluations.values())
    rows = [(name, vars(found), found.examples) for name, found in level.evaluations.items()]
    if len(rows) > 1:
        rows.append(("weighted mean", dict(level.mean), count))
    for name, found, examples in rows:
        scores = [f"{found[key]:.2f}" for key in MEASURES]
        print(ROW.format(number, level.name, name, f"{found['loss']:.4f}", *scores, examples))


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
    moved = [sum(getattr(item, way) for item in flat) for way in ("bytes_up", "bytes_down")]
    print(f"flat averaging: {moved[0] / 1e6:.2f} MB up, {moved[1] / 1e6:.2f} MB down, weights")
    print("the devices on their own validation parts, weighted mean:")
    print(SIDE.format("round", "loss, tree", "loss, flat", "rougeL, tree", "rougeL, flat"))
    for one, other in zip(rounds, flat, strict=True):
        end = one.levels[0].mean
        if end and other.mean:
            numbers = (end["loss"], other.mean["loss"]), (end["rougeL"], other.mean["rougeL"])
            shown = [f"{value:.4f}" for value in numbers[0]]
            print(SIDE.format(one.number, *shown, *(f"{value:.2f}" for value in numbers[1])))
