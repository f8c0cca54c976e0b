"""``python -m fedcore.simulate``: a federation on one file, dealt out to simulated devices."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedcore.errors import EdgewiseError, SpecError
from fedcore.partition.split import SplitConfig
from fedcore.plan.fedpipe.types import Allocation
from fedcore.simulate import baselines
from fedcore.simulate.agglomerative.command import refuse_fleet, run_tree
from fedcore.simulate.device_scores import even_lines, own_rows
from fedcore.simulate.federation import RoundResult, SimulationEvent, simulate
from fedcore.simulate.fleet_options import fleet_of
from fedcore.simulate.options import fleet_options, parser, spec_from
from fedcore.simulate.partitioning import deal
from fedcore.simulate.results import OnEvent
from fedcore.spec.job import JobSpec
from fedcore.spec.options.distill import AGGLOMERATIVE
from fedcore.spec.overrides import Tailoring
from fedcore.train.datasets import Source

ROW = "{:>5}  {:24.24} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when all rounds closed, 2 for bad input (said on one line each)."""
    args = parser().parse_args(arguments)
    try:
        spec = spec_from(args)
        if args.alone:
            baselines.refuse(spec)
        with _workdir(args.workdir) as workdir:
            whole = Source(args.data, args.text_column, args.summary_column)
            wanted = SplitConfig(args.partition, args.label_column, args.devices, args.seed)
            devices = deal(whole, wanted, workdir)
            if spec.method.name == AGGLOMERATIVE:
                refuse_fleet(fleet_options(args))
                return _write(args.json, run_tree(spec, devices, workdir, not args.without_flat))
            print(f"{spec.model.name}, {spec.strategy.name}, {len(devices)} devices, {args.data}")
            if spec.adapter.family.trains_low_rank_factors:
                print(f"adapters of rank {_ranks(spec)}, averaged by {spec.adapter.aggregation}")
            print(
                ROW.format("round", "device", "loss", "rouge1", "rouge2", "rougeL", "examples", "s")
            )
            fleet = fleet_of(fleet_options(args), list(devices))
            planned: dict[str, Tailoring] = {}
            results = simulate(spec, devices, workdir, _listener(spec, planned), fleet=fleet)
            _print_change(results)
            found = {"spec": spec.to_dict(), "rounds": [result.to_dict() for result in results]}
            if args.alone:
                found["alone"] = baselines.run_alone(spec, devices, workdir, results, planned)
    except SpecError as error:
        return _refuse(str(fault) for fault in error.faults)
    except EdgewiseError as error:
        return _refuse([str(error)])
    return _write(args.json, found)


def _write(path: str | None, found: Mapping[str, Any]) -> int:
    """Write the results where they were asked for; 0."""
    if path:
        Path(path).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return 0


def _refuse(reasons: Iterator[str] | Sequence[str]) -> int:
    for reason in reasons:
        print(f"simulate: {reason}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def _workdir(given: str | None) -> Iterator[Path]:
    """The folder asked for, which stays, or a temporary one."""
    if given:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="edgewise-simulate-") as folder:
        yield Path(folder)


def _ranks(spec: JobSpec) -> str:
    served = str(spec.adapter.rank)
    if not spec.adapter.ranks:
        return served
    return f"{served} as served, {','.join(spec.adapter.ranks)} on the devices"


def _listener(spec: JobSpec, planned: dict[str, Tailoring]) -> OnEvent:
    """Prints what happens, and notes in ``planned`` what FedPipe has a device train."""

    def hear(event: SimulationEvent) -> None:
        if isinstance(event.value, Allocation):
            planned[event.device] = event.value.tailoring(spec)
        _print_event(event)

    return hear


def _print_event(event: SimulationEvent) -> None:
    if isinstance(event.value, Allocation):
        print(f"plan   {event.device}: {event.value.why} ({event.value.memory / 1e6:.0f} MB)")
    if not isinstance(event.value, RoundResult):
        return
    result = event.value
    shown = [
        (name, {**vars(found)}, found.examples, found.seconds)
        for name, found in result.evaluations.items()
    ]
    count = sum(found.examples for found in result.evaluations.values())
    means = [("weighted mean", result.mean, count, result.seconds)] if result.mean else []
    _print_rows(event.round_number, [*shown, *own_rows(result.evaluations), *means])
    for name, told in result.measured.items():
        if "reward_after" in told:
            change = f"{told['reward_before']:.4f} -> {told['reward_after']:.4f}"
            print(f"{result.number:>5}  {name:24.24} own reward {change} by its own training")
    for line in even_lines(result.evaluations):
        print(f"{result.number:>5}  {line}")
    if result.fold and result.fold.aggregation_error is not None:
        error = 100 * result.fold.aggregation_error
        print(f"{result.number:>5}  the served adapters are {error:.3g} % off their mean product")
    if result.levels:
        print(f"{result.number:>5}  {_levels(result)}")
    if result.virtual_s:
        old = f", updates {', '.join(map(str, result.staleness))} versions old"
        stale = old if any(result.staleness) else ""
        print(f"{result.number:>5}  model ready at {result.virtual_s:.1f} virtual s{stale}")


def _levels(result: RoundResult) -> str:
    into, *below = result.levels
    deeper = "".join(f", {size:,} at level {level}" for level, size in enumerate(below, start=2))
    return f"{into:,} bytes of updates reach the server, {result.bytes_up:,} without a tree{deeper}"


def _print_rows(number: int, rows: Sequence[tuple[str, Mapping[str, float], int, float]]) -> None:
    for name, found, count, seconds in rows:
        scores = [f"{found[key]:.2f}" for key in ("rouge1", "rouge2", "rougeL")]
        print(ROW.format(number, name, f"{found['loss']:.4f}", *scores, count, f"{seconds:.1f}"))
    sys.stdout.flush()


def _print_change(results: Sequence[RoundResult]) -> None:
    measured = [result.mean for result in results if result.mean]
    first, last = measured[0], measured[-1]
    moved = sum(result.bytes_up + result.bytes_down for result in results)
    print(
        f"loss {first['loss']:.4f} -> {last['loss']:.4f}, ROUGE-L {first['rougeL']:.2f} -> "
        f"{last['rougeL']:.2f}, {moved / 1e6:.2f} MB moved, global {results[-1].sha256[:12]}"
    )
    if results[-1].virtual_s:
        print(f"{results[-1].virtual_s:.1f} virtual s")


if __name__ == "__main__":
    sys.exit(main())
