"""A local training step compared with the usual plain loop, in one process, in turns.

FLAN-T5-small's shape with random weights; batches of 8, sources of 256 to 512 tokens, targets of
64. ``--curves`` trains ``nano`` on text with both loops over three seeds instead and compares the
validation losses. A faster loop must not learn less.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import step_curves
from benchmarks.random_model import random_model, varied_examples
from benchmarks.step_loops import StepTask, Timed, Variant, turn
from fedcore.architecture.sizes import KNOWN
from fedcore.compute.speed import peak_flops, prefers_bf16
from fedcore.plan.cost.flops import mfu
from fedcore.spec.parse import parse_spec

SOURCE, TARGET, BATCH = (256, 512), 64, 8
DROPOUT = 0.1  # of the family's checkpoints


def variants(best: str, every: bool) -> list[Variant]:
    """The first is the baseline. ``best`` is this machine's faster precision."""
    chosen = [
        Variant("plain loop", "plain", "fp32", DROPOUT, pages=False),
        Variant("Edgewise", "own", best, DROPOUT),
        Variant("Edgewise, no dropout", "own", best, 0.0),
    ]
    if every:
        chosen += [
            Variant("plain loop, no dropout", "plain", "fp32", 0.0, pages=False),
            Variant("plain loop, bf16 autocast", "plain", "bf16", DROPOUT, pages=False),
            Variant("Edgewise, fp32", "own", "fp32", DROPOUT),
            Variant("Edgewise, pages not kept", "own", best, DROPOUT, pages=False),
            Variant("Edgewise, kernels of transformers", "own", best, DROPOUT, "plain"),
        ]
    return chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", choices=("lora", "full", "both"), default="both")
    parser.add_argument("--model", choices=[name.split("-")[-1] for name in KNOWN], default="small")
    parser.add_argument("--steps", type=int, default=4, help="timed steps a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--all", action="store_true", help="each switch alone, too")
    parser.add_argument("--curves", action="store_true", help="compare losses, not speed")
    parser.add_argument("--data", help="FILE:text,summary for --curves; default: dialogues")
    parser.add_argument("--json", help="write every turn to this file")


def run(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.curves:
        return step_curves.run(args.data)
    best = "bf16" if prefers_bf16() else "fp32"
    peaks = {precision: peak_flops(precision) for precision in ("fp32", "bf16")}
    peak_rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in peaks.items())
    print(
        f"{args.model}, {torch.get_num_threads()} threads of {os.cpu_count()}; peaks: {peak_rates}"
    )
    every: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for adapter in ("lora", "full") if args.adapter == "both" else (args.adapter,):
            task = _task(args, adapter, Path(folder))
            tried = variants(best, args.all)
            timings: list[list[Timed]] = [[] for _ in tried]
            for _ in range(args.turns):
                for variant, turns in zip(tried, timings, strict=True):
                    turns.append(turn(variant, task))
            _print(adapter, tried, timings, peaks)
            every[adapter] = {
                variant.name: [asdict(one) for one in turns]
                for variant, turns in zip(tried, timings, strict=True)
            }
    if args.json:
        Path(args.json).write_text(json.dumps({"peaks": peaks, "turns": every}), "utf-8")
    return 0


def _task(args: argparse.Namespace, adapter: str, folder: Path) -> StepTask:
    sizes = KNOWN[f"google/flan-t5-{args.model}"]
    rng = random.Random(0)
    lengths = [(rng.randint(*SOURCE), TARGET) for _ in range(BATCH * args.steps)]
    prepared = varied_examples(folder / "examples", lengths, sizes.vocab)
    spec = parse_spec(
        {
            "model": {"name": str(random_model(sizes, folder / "model"))},
            "adapter": {"kind": adapter, "rank": 8, "dropout": 0.0},
            "train": {"batch_size": BATCH, "learning_rate": 1e-4},
        }
    )
    return StepTask(spec, prepared.train, sizes)


def _print(
    adapter: str,
    tried: Sequence[Variant],
    timings: Sequence[Sequence[Timed]],
    peaks: dict[str, float],
) -> None:
    """Medians over the turns; ratios are taken within a turn, with their range."""
    print(f"\n{adapter}: real tokens/s; MFU of the peak of its precision; most MB above the start")
    print("| loop | tokens/s | ratio (range) | MFU | s forward + loss, backward, optimizer | MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for variant, turns in zip(tried, timings, strict=True):
        speed = [one.tokens / one.seconds for one in turns]
        first = [one.tokens / one.seconds for one in timings[0]]
        ratios = sorted(a / b for a, b in zip(speed, first, strict=True))
        share = statistics.median(
            mfu(one.flops, one.seconds, peaks[variant.precision]) for one in turns
        )
        middle = sorted(turns, key=lambda one: one.seconds)[len(turns) // 2]
        phase_s = middle.phase_s
        forward_s = phase_s["forward"] + phase_s.get("loss", 0.0)
        seconds = (forward_s, phase_s["backward"], phase_s["optimizer"])
        phases = ", ".join(f"{value / middle.steps:.3f}" for value in seconds)
        print(
            f"| {variant.name}, {variant.precision} | {statistics.median(speed):,.0f} "
            f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
            f"| {100 * share:.0f} % | {phases} | {middle.memory_bytes / 1e6:,.0f} |",
            flush=True,
        )
