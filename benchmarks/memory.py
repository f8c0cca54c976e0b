"""Peak memory of local training: FLAN-T5 small to XL, by precision of the frozen weights.

Each figure is the peak of one process that trains two steps on random weights. If the free memory
is not enough, ``fedcore.plan.cost.memory`` estimates it and the figure is marked. Full training has
fp32 weights and is in the column of its computing precision. int8 and nf4 compute in bf16.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from benchmarks.memory_run import OUT_OF_MEMORY, Peaks
from benchmarks.random_model import random_model
from fedcore.architecture.sizes import FP32_BYTES, KNOWN
from fedcore.errors import TrainingError
from fedcore.model.initial import write_initial
from fedcore.plan.cost.memory import memory, usable
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.spec.job import JobSpec
from fedcore.spec.options.train import BASES, BasePrecision
from fedcore.spec.parse import parse_spec

GB = 1e9
CONCRETE_BASES = tuple(str(base) for base, row in BASES.items() if not row.follows_training)
METHODS: dict[str, dict[str, dict[str, object]]] = {
    "full": {"adapter": {"kind": "full"}},
    "LoRA r=8": {"adapter": {"rank": 8}},
    "LoRA r=8, checkpointing": {"adapter": {"rank": 8}, "train": {"checkpointing": True}},
}
SHORT = {"full": "full", "lora": "LoRA r=8", "checkpointing": "LoRA r=8, checkpointing"}
MODELS = {name.rpartition("-")[2]: name for name in KNOWN}
SIGN = "estimated "


@dataclass(frozen=True)
class MemoryCell:
    """One configuration: the estimate in bytes and, if it ran, the measured peaks."""

    model: str
    method: str
    base: str
    micro_batch: int
    estimate: float
    measured: Peaks | None

    def __str__(self) -> str:
        if self.measured:
            return f"{self.measured.peak / GB:.2f}"
        return f"{SIGN}{self.estimate / GB:.2f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--methods", nargs="+", default=list(SHORT), choices=SHORT)
    parser.add_argument("--bases", nargs="+", default=CONCRETE_BASES, choices=CONCRETE_BASES)
    parser.add_argument("--batch", type=int, default=8, help="examples of a step")
    parser.add_argument("--micro-batches", nargs="+", type=int, default=(8, 1))
    parser.add_argument("--lengths", nargs=2, type=int, default=(512, 64), metavar="TOKENS",
                        help="of source and target")  # fmt: skip
    parser.add_argument("--steps", type=int, default=2, help="moments exist from the second on")
    parser.add_argument("--estimate", nargs="+", default=(), choices=MODELS, metavar="MODEL",
                        help="models to estimate only")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=1800.0, help="a figure may take")
    parser.add_argument("--folder", help="keep the made models here (default: a temporary folder)")
    parser.add_argument("--json", help="write every figure to this file")


def run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="edgewise-memory-") as temporary:
        cells = list(_table(args, Path(args.folder or temporary), Path(temporary)))
    peaks = [cell.measured for cell in cells if cell.measured]
    print(
        f"\nGB (1e9 bytes) at the peak; torch {torch.__version__}, {free_bytes() / GB:.1f} GB free."
    )
    if peaks and peaks[0].device == "cpu":
        print(f"Of the whole process; imported code alone takes {peaks[0].imported / GB:.2f} GB.")
    elif peaks:
        print(
            f"Of what torch allocated on {torch.cuda.get_device_name()}; its context comes on top."
        )
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(cell) for cell in cells], indent=2) + "\n")
    return 0


def _table(args: argparse.Namespace, models: Path, work: Path) -> Iterator[MemoryCell]:
    source, target = args.lengths
    print(f"Batch {args.batch}, {source} source and {target} target tokens, {args.steps} steps.\n")
    print(f"| FLAN-T5 | method | examples at a time | {' | '.join(args.bases)} |")
    print("| --- " * (3 + len(args.bases)) + "|")
    for model in args.models:
        for method in (SHORT[name] for name in args.methods):
            for micro in args.micro_batches:
                row = [_cell(args, (model, method, base, micro), models, work)
                       for base in args.bases]  # fmt: skip
                figures = " | ".join(str(cell or "") for cell in row)
                print(f"| {model} | {method} | {micro} | {figures} |", flush=True)
                yield from (cell for cell in row if cell)
        if not args.folder:
            shutil.rmtree(models / model, ignore_errors=True)


def spec_of(args: argparse.Namespace, key: tuple[str, str, str, int], folder: Path) -> JobSpec:
    """The job of one figure. ``folder`` contains its model."""
    _, method, base, micro = key
    changes = METHODS[method]
    source, target = args.lengths
    train = {
        "local_steps": args.steps,
        "batch_size": args.batch,
        "micro_batch": min(micro, args.batch),
        "precision": "fp32" if base == "fp32" else "bf16",
    }
    return parse_spec(
        {
            "model": {"name": str(folder), "base": base if _freezes_base(method) else "auto"},
            "adapter": changes["adapter"],
            "data": {"max_source_tokens": source, "max_target_tokens": target},
            "train": {**train, **changes.get("train", {})},
        }
    )


def _freezes_base(method: str) -> bool:
    return parse_spec({"adapter": METHODS[method]["adapter"]}).adapter.family.freezes_base


def _cell(
    args: argparse.Namespace, key: tuple[str, str, str, int], models: Path, work: Path
) -> MemoryCell | None:
    model, method, base, micro = key
    if BASES[BasePrecision(base)].quantised and not _freezes_base(method):
        return None
    spec = spec_of(args, key, models / model)
    plan = Workload.of(spec, KNOWN[MODELS[model]], spec.train.precision, _accelerated())
    expected = memory(plan, BatchShape(min(micro, args.batch), *args.lengths), _accelerated())
    limit = usable(free_bytes())
    fits = limit is None or expected.peak < limit
    measured = None
    if model not in args.estimate and fits:
        # The disk must have room for the model and, in full training, for two files of its size.
        files = 2 if plan.trained == plan.parameters else 1
        models.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(models).free > (files + 0.5) * FP32_BYTES * plan.parameters:
            random_model(KNOWN[MODELS[model]], models / model)
            measured = _measure(spec, work, args.seconds)
    return MemoryCell(*key, expected.peak, measured)


def _accelerated() -> bool:
    return torch.cuda.is_available()


def free_bytes() -> float:
    """Free memory of the accelerator, else of the machine."""
    if _accelerated():
        return float(torch.cuda.mem_get_info()[0])
    return float(psutil.virtual_memory().available)


def _measure(spec: JobSpec, work: Path, seconds: float) -> Peaks | None:
    """None if the process ran out of memory or exceeded its time."""
    weights, job = work / "global.safetensors", work / "spec.json"
    write_initial(spec, weights)
    job.write_text(json.dumps(spec.to_dict()), "utf-8")
    command: Sequence[str] = [
        sys.executable, "-m", "benchmarks.memory_run", str(job), str(weights), str(work),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"memory: {spec.model.name} took over {seconds:g} s", file=sys.stderr)
        return None
    if done.returncode in (-signal.SIGKILL, OUT_OF_MEMORY):
        print(f"memory: {spec.model.name} needs more memory than there is", file=sys.stderr)
        return None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no error output"]
        raise TrainingError(f"the measured process ended with {done.returncode}: {last[0]}")
    return Peaks(**json.loads(done.stdout.splitlines()[-1]))
