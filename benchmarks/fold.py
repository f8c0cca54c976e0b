"""Throughput of folding large updates, compared with a memory copy and with plain loops.

All cases take turns in one run, with files in the page cache. GB/s refer to the updates' bytes (1e9
bytes). The share of the copy limit makes machines comparable.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedcore.aggregation.block_pass import fold_range
from fedcore.aggregation.flat_inputs import open_inputs
from fedcore.aggregation.fold_task import NextFiles, ServerFiles
from fedcore.aggregation.next_model import fold_files
from fedcore.aggregation.update_files import UpdateFile
from fedcore.compute.determinism import torch_threads
from fedcore.spec.job import JobSpec
from fedcore.spec.options.strategy import FoldKind, StrategyKind, StrategySpec
from fedcore.wire.frame import FrameWriter
from fedcore.wire.tensor_bytes import DTYPES

TENSOR = 1 << 22  # elements of each tensor of the generated model
GB = 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--parameters", type=int, default=76_961_152, help="FLAN-T5-small's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5, help="turns; prints best and median")
    parser.add_argument("--dtype", choices=("F32", "BF16"), default="F32", help="of the updates")
    parser.add_argument("--strategy", choices=tuple(map(str, StrategyKind)), default="fedavg")
    parser.add_argument("--fold", choices=tuple(map(str, FoldKind)), default="mean")
    parser.add_argument("--folder", type=Path, help="folder for the files (default: TMPDIR)")


@dataclass(frozen=True)
class FoldCase:
    """The files and options of one fold."""

    spec: JobSpec
    before: Path
    updates: tuple[UpdateFile, ...]
    threads: int

    @property
    def folder(self) -> Path:
        return self.before.parent

    @property
    def input_bytes(self) -> int:
        return sum(item.path.stat().st_size for item in self.updates)


def run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-fold-") as folder:
        case = _random_case(args, Path(folder))
        print(f"{args.updates} updates of {args.parameters:,} {args.dtype} parameters, "
              f"{case.input_bytes / GB:.2f} GB in; {args.threads} threads; load before "
              f"{os.getloadavg()[0]:.1f}")  # fmt: skip
        shuffled = replace(case, updates=case.updates[::-1])
        hashes = {_fold(case), _fold(shuffled, 1), _fold(shuffled, 3)}
        print(f"1, {case.threads} and 3 threads, two orders of updates: {len(hashes)} result")
        if len(hashes) != 1:
            raise SystemExit("the fold's bits depend on threads or order")
        # Peak resident memory of one fold, mapped pages of files included, from /proc/self.
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to now
        _fold(case)
        extra = _status("VmHWM") - before
        memory = f"{extra / 1e6:.0f} MB, {extra / case.before.stat().st_size:.2f} x one fp32 model"
        timings = _measure(_cases(case), args.repeat)
        limit = min(item.wall for item in timings["memory copy (limit)"])
        print(f"{'':40}{'best s':>8}{'median':>8}{'core s':>8}{'GB/s in':>9}{'of copy':>9}")
        for name, turns in timings.items():
            best, cores = min(item.wall for item in turns), min(item.cores for item in turns)
            middle = statistics.median(item.wall for item in turns)
            rate = f"{case.input_bytes / best / GB:9.1f}{limit / best:9.2f}"
            rate = "" if name.startswith("output") else rate
            print(f"{name:40}{best:8.3f}{middle:8.3f}{cores:8.3f}{rate}")
        print(f"peak memory of the fold above the process before it: {memory}")
    return 0


def _random_case(args: argparse.Namespace, folder: Path) -> FoldCase:
    """Random frames, written tensor by tensor; each update is another view of the same noise."""
    noise = torch.randn(2 * TENSOR, generator=torch.Generator().manual_seed(0)) * 1e-3
    sizes = [TENSOR] * (args.parameters // TENSOR) + [args.parameters % TENSOR]
    names = {f"w.{number:04}.weight": size for number, size in enumerate(sizes) if size}

    def write(path: Path, dtype: str, shift: int) -> Path:
        layout = {name: (dtype, (size,)) for name, size in names.items()}
        meta = {"kind": "update", "wire": {"F32": "fp32", "BF16": "bf16"}[dtype]}
        with FrameWriter(path, layout, meta) as out:
            for place, name in enumerate(out.order):
                start = (shift * 7919 + place * 104_729) % TENSOR
                out.write(name, noise[start : start + names[name]].to(DTYPES[dtype]))
        return path

    options = replace(StrategySpec(), name=args.strategy, fold=args.fold)
    spec = replace(
        JobSpec(),
        strategy=options,
        adapter=replace(JobSpec().adapter, kind="full"),
        train=replace(JobSpec().train, local_steps=1),
    )

    def update(slot: int) -> UpdateFile:
        path = write(folder / f"update-{slot}", args.dtype, slot + 1)
        return UpdateFile(path, slot + 1.0, slot, steps=slot + 1, loss_before=slot + 1.0)

    updates = tuple(update(slot) for slot in range(args.updates))
    return FoldCase(spec, write(folder / "before", "F32", 0), updates, args.threads)


def _fold(case: FoldCase, threads: int = 0) -> str:
    after = NextFiles(case.folder / "after", case.folder / "state")
    before = ServerFiles(case.before, None)
    done = fold_files(case.spec, before, case.updates, after, threads or case.threads)
    return done.global_frame.sha256


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _cases(case: FoldCase) -> dict[str, Callable[[], object]]:
    """The measured functions. Each reads all updates once, except those that only write."""
    inputs = open_inputs(case.spec, ServerFiles(case.before, None), case.updates, case.folder)
    rows = [update.data.read(0, inputs.layout.elements) for update in inputs.updates]
    shares = [update.share for update in inputs.updates]
    target = torch.empty(inputs.layout.elements)
    parts = torch.arange(case.threads + 1) * inputs.layout.elements // case.threads

    def each(work: Callable[[slice], object]) -> None:
        with ThreadPoolExecutor(case.threads) as pool, torch_threads(1):
            spans = zip(parts[:-1].tolist(), parts[1:].tolist(), strict=True)
            list(pool.map(lambda span: work(slice(*span)), spans))

    def copy() -> None:
        each(lambda part: [target[part].copy_(row[part]) for row in rows])

    def read() -> None:
        each(lambda part: [torch.dot(row[part], row[part]) for row in rows])

    def fold_in_memory() -> None:
        opened = open_inputs(case.spec, ServerFiles(case.before, None), case.updates, case.folder)
        fold_range(opened, (0, opened.layout.elements), lambda *_: None, case.threads)

    return {
        "memory copy (limit)": copy,
        "read alone (sum of squares)": read,
        "ours, files to sums, norms, checks": fold_in_memory,
        "ours, files to a synced, hashed file": lambda: _fold(case),
        "torch in place, no norms, in memory": lambda: _torch(rows, shares, target, case.threads),
        "numpy loop, no norms, in memory": lambda: _numpy(rows, shares),
        "output: SHA-256 alone": lambda: _sha256(case.folder / "after"),
        "output: write and sync alone": lambda: _write(target, case.folder / "copy"),
    }


def _torch(rows: list[Tensor], shares: list[float], target: Tensor, threads: int) -> None:
    with torch_threads(threads):
        torch.mul(rows[0], shares[0], out=target)
        for row, share in zip(rows[1:], shares[1:], strict=True):
            target.add_(row, alpha=share)


def _numpy(rows: list[Tensor], shares: list[float]) -> None:
    arrays = [row.numpy() for row in rows]
    total = arrays[0] * np.float32(shares[0])
    for array, share in zip(arrays[1:], shares[1:], strict=True):
        total += array * np.float32(share)


def _sha256(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _write(target: Tensor, path: Path) -> None:
    with path.open("wb") as file:
        file.write(target.numpy().data)
        os.fsync(file.fileno())


@dataclass(frozen=True)
class FoldTiming:
    """Wall seconds and CPU seconds. CPU seconds depend less on other processes."""

    wall: float
    cores: float


def _measure(cases: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, list[FoldTiming]]:
    """Run the cases in turns, so that all share the same disturbances. The first turn warms up."""
    timings: dict[str, list[FoldTiming]] = {name: [] for name in cases}
    for turn in range(repeat + 1):
        for name, work in cases.items():
            began, busy = time.perf_counter(), time.process_time()
            work()
            if turn:
                wall, cores = time.perf_counter() - began, time.process_time() - busy
                timings[name].append(FoldTiming(wall, cores))
    return timings
