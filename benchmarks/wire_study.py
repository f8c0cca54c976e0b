"""ROUGE-L and loss against bytes: whole federations with each codec, adapter and seed.

Three devices hold dialogues of a domain that the carried model never saw; each run is one
simulation, evaluated after its last round. A run's figures are kept as one JSON file, so a study
that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcore.dialogues.examples import generate
from fedcore.formats.codec_chain import parse
from fedcore.simulate.federation import simulate
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source

CODECS = (
    "fp32", "int8", "int4+zstd", "top_k(0.5)+int4+zstd", "top_k(0.25)+int4+zstd",
    "top_k(0.1)+int8+zstd",
)  # fmt: skip
DOMAINS = ("clinic", "law", "workshop")
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {
        "adapter": {"kind": "lora", "rank": 8, "dropout": 0.0},
        "train": {"learning_rate": 5e-3},
    },
    "full": {"adapter": {"kind": "full"}, "train": {"learning_rate": 1e-3}},
}
EXAMPLES, ROUNDS, STEPS, VALIDATION = 480, 6, 12, 96


@dataclass(frozen=True)
class CodecRun:
    """One federation of the study."""

    adapter: str
    codec: str
    seed: int

    @property
    def file(self) -> str:
        return f"{self.adapter}-{self.codec}-{self.seed}.json"

    @property
    def spec(self) -> JobSpec:
        chain, options = parse(self.codec), ADAPTERS[self.adapter]
        fixed = {"local_steps": STEPS, "batch_size": 8, "precision": "fp32"}
        return parse_spec(
            {
                "model": {"name": "nano"},
                "adapter": options["adapter"],
                "data": {
                    "max_source_tokens": 256,
                    "max_target_tokens": 64,
                    "validation_fraction": VALIDATION / EXAMPLES,
                    "max_validation_examples": VALIDATION,
                },
                "train": {**fixed, **options["train"]},
                "wire": {
                    "uplink": chain.values,
                    "top_k": chain.top_k,
                    "compress": chain.packed,
                },
                "evaluation": {"every": 0, "initial": False},
                "rounds": ROUNDS,
                "seed": self.seed,
                "threads": 1,
                "deterministic": True,
            }
        )


@dataclass(frozen=True)
class CodecResult:
    """What a run ended with; ``up`` is bytes per device and round."""

    up: float
    loss: float
    rougeL: float  # noqa: N815
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --study")
    group.add_argument("--folder", type=Path, default=Path("wire-study"), help="of its figures")
    group.add_argument("--codecs", nargs="+", default=CODECS, metavar="CHAIN")
    group.add_argument("--adapters", nargs="+", choices=ADAPTERS, default=tuple(ADAPTERS))
    group.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    group.add_argument("--processes", type=int, default=2)


def run(args: argparse.Namespace) -> int:
    runs = [
        CodecRun(adapter, codec, seed)
        for seed in args.seeds
        for adapter in args.adapters
        for codec in args.codecs
    ]
    args.folder.mkdir(parents=True, exist_ok=True)
    due = [item for item in runs if not (args.folder / item.file).exists()]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, context) as pool:
        work = {pool.submit(_perform, item, args.folder): item for item in due}
        for done in as_completed(work):
            print(f"{work[done].file} in {done.result().seconds:.0f} s", flush=True)
    for adapter in args.adapters:
        _table(adapter, args)
    return 0


def _perform(item: CodecRun, folder: Path) -> CodecResult:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="wire-study-") as place:
        devices = {}
        for domain in DOMAINS:
            path = Path(place) / f"{domain}.jsonl"
            rows = generate(domain, EXAMPLES, 100 + item.seed)
            path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), "utf-8")
            devices[domain] = Source(str(path), "dialogue", "summary", domain)
        results = simulate(item.spec, devices, Path(place) / "work")
    last, members = results[-1], len(devices)
    up = statistics.fmean(result.bytes_up for result in results[1:]) / members
    outcome = CodecResult(up, last.mean["loss"], last.mean["rougeL"], time.perf_counter() - began)
    part = folder / f".{item.file}.part"
    part.write_text(json.dumps(asdict(outcome)) + "\n", "utf-8")
    part.replace(folder / item.file)
    return outcome


def _table(adapter: str, args: argparse.Namespace) -> None:
    """Means and deviations over the seeds; differences are to fp32 of the same seed."""
    results = {codec: _read(adapter, codec, args) for codec in args.codecs}
    whole = results.get("fp32") or _read(adapter, "fp32", args)
    seeds = ", ".join(map(str, args.seeds))
    print(f"\n### {adapter}, {ROUNDS} rounds of {STEPS} steps, seeds {seeds}\n")
    print(
        "| codec | kB a device and round | fewer | ROUGE-L | loss | ROUGE-L - fp32 | loss - fp32 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for codec, items in results.items():
        up = statistics.fmean(item.up for item in items)
        ratio = f"{statistics.fmean(item.up for item in whole) / up:.1f} x" if whole else "-"
        cells = [f"{up / 1e3:.1f}", ratio]
        cells += [_spread([item.rougeL for item in items], 2)]
        cells += [_spread([item.loss for item in items], 4)]
        pairs = list(zip(items, whole, strict=False))
        cells += [_spread([one.rougeL - other.rougeL for one, other in pairs], 2, sign=True)]
        cells += [_spread([one.loss - other.loss for one, other in pairs], 4, sign=True)]
        print(f"| {codec} | {' | '.join(cells)} |")


def _read(adapter: str, codec: str, args: argparse.Namespace) -> list[CodecResult]:
    paths = [args.folder / CodecRun(adapter, codec, seed).file for seed in args.seeds]
    return [CodecResult(**json.loads(path.read_text("utf-8"))) for path in paths if path.exists()]


def _spread(values: Sequence[float], digits: int, sign: bool = False) -> str:
    """Mean and standard deviation."""
    if not values:
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    plus = "+" if sign else ""
    return f"{statistics.fmean(values):{plus}.{digits}f} ± {deviation:.{digits}f}"
