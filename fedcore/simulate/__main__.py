"""``python -m fedcore.simulate``: a federation on one file, partitioned over devices."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedcore.errors import EdgewiseError, SpecError
from fedcore.partition.split import SplitConfig
from fedcore.plan.cost.allocation import Allocation
from fedcore.simulate import baselines
from fedcore.simulate.agglomerative.command import refuse_fleet, run_tree
from fedcore.simulate.device_scores import Scores, fairness_lines, personal_rows
from fedcore.simulate.federation import simulate
from fedcore.simulate.fleet_options import fleet_of
from fedcore.simulate.options import fleet_options, parser, spec_from
from fedcore.simulate.partitioning import deal
from fedcore.simulate.results import RoundResult, SimulationEvent
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import Tailoring
from fedcore.train.datasets import Source

Row = tuple[str, Scores, int, float]  # name, scores, examples, seconds
ROW = "{:>5}  {:24.24} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all rounds closed, 2 for bad input (one line for each fault)."""
    args = parser().parse_args(arguments)
    try:
        spec = spec_from(args)
        if args.alone:
            baselines.refuse(spec)
        with contextlib.ExitStack() as stack:
            workdir = Path(
                args.workdir
                or stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewise-simulate-"))
            )
            output = _run(spec, args, workdir)
    except SpecError as error:
        return _refuse(str(fault) for fault in error.faults)
    except EdgewiseError as error:
        return _refuse([str(error)])
    if args.json:
        Path(args.json).write_text(json.dumps(output, indent=2) + "\n", "utf-8")
    return 0


def _refuse(reasons: Iterable[str]) -> int:
    for reason in reasons:
        print(f"simulate: {reason}", file=sys.stderr)
    return 2


def _run(spec: JobSpec, args: argparse.Namespace, workdir: Path) -> dict[str, Any]:
    """Print the rounds as they close; return all results as JSON values."""
    source = Source(args.data, args.text_column, args.summary_column)
    split = SplitConfig(args.partition, args.label_column, args.devices, args.seed)
    devices = deal(source, split, workdir)
    if spec.method.family.keeps_weights_on_device:
        refuse_fleet(fleet_options(args))
        return run_tree(spec, devices, workdir, not args.without_flat)
    print(f"{spec.model.name}, {spec.strategy.name}, {len(devices)} devices, {args.data}")
    adapter = spec.adapter
    if adapter.family.trains_low_rank_factors:
        ranks = f"{adapter.rank}"
        if adapter.ranks:
            ranks += f" as served, {','.join(adapter.ranks)} on the devices"
        print(f"adapters of rank {ranks}, averaged by {adapter.aggregation}")
    print(ROW.format("round", "device", "loss", "rouge1", "rouge2", "rougeL", "examples", "s"))
    fleet = fleet_of(fleet_options(args), list(devices))
    allocated: dict[str, Tailoring] = {}

    def on_event(event: SimulationEvent) -> None:
        if isinstance(event.value, Allocation):
            allocated[event.device] = event.value.overrides(spec)
            megabytes = event.value.memory / 1e6
            print(f"plan   {event.device}: {event.value.why} ({megabytes:.0f} MB)")
        elif isinstance(event.value, RoundResult):
            _print_round(event.value)

    results = simulate(spec, devices, workdir, on_event, fleet)
    _print_change(results)
    output = {"spec": spec.to_dict(), "rounds": [result.to_dict() for result in results]}
    if args.alone:
        output["alone"] = baselines.run_baselines(spec, devices, workdir, results, allocated)
    return output


def _print_round(result: RoundResult) -> None:
    evaluations = result.evaluations
    rows: list[Row] = [
        (name, {**vars(item)}, item.examples, item.seconds) for name, item in evaluations.items()
    ]
    rows += personal_rows(evaluations)
    if result.mean:
        count = sum(item.examples for item in evaluations.values())
        rows.append(("weighted mean", result.mean, count, result.seconds))
    for name, scores, count, seconds in rows:
        rouge = [f"{scores[key]:.2f}" for key in ("rouge1", "rouge2", "rougeL")]
        loss = f"{scores['loss']:.4f}"
        print(ROW.format(result.number, name, loss, *rouge, count, f"{seconds:.1f}"))
    for line in _remarks(result):
        print(f"{result.number:>5}  {line}")
    sys.stdout.flush()


def _remarks(result: RoundResult) -> Iterator[str]:
    """What a round's table does not show: rewards, fairness, aggregation, tree and clock."""
    for name, metrics in result.measured.items():
        if "reward_after" in metrics:
            change = f"{metrics['reward_before']:.4f} -> {metrics['reward_after']:.4f}"
            yield f"{name:24.24} own reward {change} by its own training"
    yield from fairness_lines(result.evaluations)
    if result.fold and result.fold.aggregation_error is not None:
        error = 100 * result.fold.aggregation_error
        yield f"the served adapters are {error:.3g} % off their mean product"
    if result.levels:
        root, *below = result.levels
        sizes = [f", {size:,} at level {level}" for level, size in enumerate(below, start=2)]
        yield (
            f"{root:,} bytes of updates reach the server, {result.bytes_up:,} without a tree"
            f"{''.join(sizes)}"
        )
    if result.virtual_s:
        ages = ", ".join(map(str, result.staleness))
        stale = f", updates {ages} versions old" if any(result.staleness) else ""
        yield f"model ready at {result.virtual_s:.1f} virtual s{stale}"


def _print_change(results: Sequence[RoundResult]) -> None:
    means = [result.mean for result in results if result.mean]
    first, last = means[0], means[-1]
    moved_bytes = sum(result.bytes_up + result.bytes_down for result in results)
    print(
        f"loss {first['loss']:.4f} -> {last['loss']:.4f}, ROUGE-L {first['rougeL']:.2f} -> "
        f"{last['rougeL']:.2f}, {moved_bytes / 1e6:.2f} MB moved, global {results[-1].sha256[:12]}"
    )
    if results[-1].virtual_s:
        print(f"{results[-1].virtual_s:.1f} virtual s")


if __name__ == "__main__":
    sys.exit(main())
