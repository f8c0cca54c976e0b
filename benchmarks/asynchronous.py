"""Time to quality by a virtual clock, on a fleet with a tenfold spread of speed.

The fleet has six devices, two for each of three domains that ``nano`` never saw. Only the slowest
two have the third domain, so leaving slow devices out costs quality. Training is real, and seconds
are those of the virtual clock. Every mode gets the virtual time of the synchronous rounds. The
target is the loss at the end of these, seed by seed. Each run is stored as one JSON file, so an
interrupted study resumes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcore.dialogues.examples import generate
from fedcore.hardware.links import LINKS
from fedcore.hardware.virtual_device import Machine
from fedcore.simulate.federation import simulate
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source

SLOWNESS = {"law-a": 1.0, "law-b": 1.5, "clinic-a": 2.0, "clinic-b": 3.0, "workshop-a": 5.0,
            "workshop-b": 10.0}  # fmt: skip
FLEET = {name: Machine(seconds, LINKS["wifi"]) for name, seconds in SLOWNESS.items()}
STEPS, EXAMPLES, VALIDATION = 4, 160, 12
POINTS = 8  # evaluations of a run, besides the first


@dataclass(frozen=True)
class ParticipationMode:
    """``rounds`` take about as long as six synchronous ones. ``rate`` is the server's rate."""

    rounds: int
    part: Mapping[str, Any]
    rate: float = 1.0


BUFFERED = {"mode": "buffered", "max_staleness": 50}
MODES = {
    "synchronous": ParticipationMode(6, {}),
    "over-selection": ParticipationMode(20, {"fraction": 0.66, "over_selection": 0.5}),
    "deadline": ParticipationMode(14, {"deadline_quantile": 0.66, "deadline_slack": 1.2}),
    "tiers": ParticipationMode(10, {"fraction": 0.33, "tiers": 3}),
    "buffered, 3": ParticipationMode(56, {**BUFFERED, "buffer_size": 3}),
    # FedAsync's mixing rate is the server's rate; 0.6 as in its paper.
    "buffered, 1": ParticipationMode(168, {**BUFFERED, "buffer_size": 1}, rate=0.6),
}


@dataclass(frozen=True)
class ModeRun:
    """One federation of the study."""

    way: str
    seed: int

    @property
    def file(self) -> str:
        return f"{self.way.replace(', ', '-')}-{self.seed}.json"

    @property
    def spec(self) -> JobSpec:
        way = MODES[self.way]
        return parse_spec(
            {
                "model": {"name": "nano"},
                "adapter": {"kind": "lora", "rank": 8, "dropout": 0.0},
                "data": {
                    "max_source_tokens": 256,
                    "max_target_tokens": 48,
                    "max_validation_examples": VALIDATION,
                },
                "train": {
                    "local_steps": STEPS,
                    "batch_size": 4,
                    "learning_rate": 5e-3,
                    "precision": "fp32",
                },
                "strategy": {"server_learning_rate": way.rate},
                "participation": dict(way.part),
                "evaluation": {"every": max(1, way.rounds // POINTS)},
                "rounds": way.rounds,
                "seed": self.seed,
                "threads": 1,
                "deterministic": True,
            }
        )


@dataclass(frozen=True)
class LossPoint:
    """An evaluation: the virtual time of its model, its loss and its ROUGE-L."""

    virtual_s: float
    loss: float
    rougeL: float  # noqa: N815
    slowest_loss: float


@dataclass(frozen=True)
class LossCurve:
    """A run's evaluations. ``updates`` were folded, the stalest ``oldest`` versions old."""

    points: tuple[LossPoint, ...]
    updates: int
    oldest: int
    bytes_moved: int
    seconds: float

    @classmethod
    def read(cls, path: Path) -> LossCurve:
        values = json.loads(path.read_text("utf-8"))
        points = tuple(LossPoint(**point) for point in values.pop("points"))
        return cls(points=points, **values)

    def reached_s(self, loss: float) -> float | None:
        """Virtual seconds until the first evaluation at or below ``loss``."""
        return next((point.virtual_s for point in self.points if point.loss <= loss), None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=Path("asynchronous-study"), help="figures")
    parser.add_argument("--ways", nargs="+", choices=MODES, default=tuple(MODES))
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--processes", type=int, default=2)


def run(args: argparse.Namespace) -> int:
    """Run what is missing, and print the table of all stored runs."""
    runs = [ModeRun(way, seed) for seed in args.seeds for way in args.ways]
    args.folder.mkdir(parents=True, exist_ok=True)
    due = [item for item in runs if not (args.folder / item.file).exists()]
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        work = {pool.submit(_perform, item, args.folder): item for item in due}
        for done in as_completed(work):
            print(f"{work[done].file} in {done.result().seconds:.0f} s", flush=True)
    print("\n".join(table(args.folder, args.ways, args.seeds)))
    return 0


def _perform(item: ModeRun, folder: Path) -> LossCurve:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="asynchronous-study-") as place:
        devices = {}
        for name in SLOWNESS:
            domain, _, which = name.partition("-")
            path = Path(place) / f"{name}.jsonl"
            rows = generate(domain, EXAMPLES, 100 * item.seed + ord(which))
            path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), "utf-8")
            devices[name] = Source(str(path), "dialogue", "summary", domain)
        results = simulate(item.spec, devices, Path(place) / "work", fleet=FLEET)
    slowest = max(SLOWNESS, key=lambda name: SLOWNESS[name])
    points = [
        LossPoint(
            result.virtual_s,
            result.mean["loss"],
            result.mean["rougeL"],
            result.evaluations[slowest].loss,
        )
        for result in results
        if result.mean
    ]
    curve = LossCurve(
        points=tuple(points),
        updates=sum(len(result.staleness) for result in results),
        oldest=max(max(result.staleness, default=0) for result in results),
        bytes_moved=sum(result.bytes_up + result.bytes_down for result in results),
        seconds=time.perf_counter() - began,
    )
    part = folder / f".{item.file}.part"
    part.write_text(json.dumps(asdict(curve)) + "\n", "utf-8")
    part.replace(folder / item.file)
    return curve


def table(folder: Path, ways: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Markdown: means and deviations over the stored seeds."""
    base = _read(folder, "synchronous", seeds)
    targets = {seed: curves.points[-1].loss for seed, curves in base.items()}
    lines = [
        f"Virtual seconds until the final loss of {MODES['synchronous'].rounds} synchronous "
        f"rounds, and the figures each mode ends with; seeds {', '.join(map(str, seeds))}.",
        "",
        "| way | s to target | faster | end, s | loss | slowest's loss | ROUGE-L | updates "
        "| oldest | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {way} | {' | '.join(_cells(curves, base, targets))} |"
        for way in ways
        if (curves := _read(folder, way, seeds))
    ]


def _read(folder: Path, way: str, seeds: Sequence[int]) -> dict[int, LossCurve]:
    paths = {seed: folder / ModeRun(way, seed).file for seed in seeds}
    return {seed: LossCurve.read(path) for seed, path in paths.items() if path.exists()}


def _cells(
    curves: Mapping[int, LossCurve], base: Mapping[int, LossCurve], targets: Mapping[int, float]
) -> list[str]:
    both = [seed for seed in curves if seed in targets]
    reached = {seed: curves[seed].reached_s(targets[seed]) for seed in both}
    faster = [
        base[seed].points[-1].virtual_s / seconds for seed, seconds in reached.items() if seconds
    ]
    times = [seconds for seconds in reached.values() if seconds is not None]
    missed = len(both) - len(times)
    ends = [item.points[-1] for item in curves.values()]
    return [
        _spread(times, 0) + (f" ({missed} never)" if missed else ""),
        f"{_spread(faster, 1)} x" if faster else "-",
        _spread([end.virtual_s for end in ends], 0),
        _spread([end.loss for end in ends], 3),
        _spread([end.slowest_loss for end in ends], 3),
        _spread([end.rougeL for end in ends], 1),
        _spread([item.updates for item in curves.values()], 0),
        str(max(item.oldest for item in curves.values())),
        _spread([item.bytes_moved / 1e6 for item in curves.values()], 1),
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
