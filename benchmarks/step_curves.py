"""Whether the faster loop learns as much: ``nano`` on text, both loops, three seeds."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.step_loops import CPU, DTYPES, LOOPS, StepTask, Variant, build
from fedcore.architecture.sizes import architecture_of
from fedcore.compute.speed import prefers_bf16
from fedcore.dialogues.examples import generate
from fedcore.methods.session import Session
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from fedcore.train.batches import Signs, collate, forward, token_losses
from fedcore.train.datasets import Source
from fedcore.train.tokenization import Prepared, TokenizedDataset

SEEDS, STEPS, BATCH, DROPOUT = (0, 1, 2), 40, 8, 0.1
RATES = {"lora": 5e-3, "full": 1e-3}
DOMAIN, EXAMPLES = "clinic", 600


def run(data: str | None) -> int:
    """Print the losses on held-back examples before and after, mean and deviation over seeds."""
    own = "bf16" if prefers_bf16() else "fp32"
    tried = [
        Variant("plain loop", "plain", "fp32", DROPOUT, pages=False),
        Variant("Edgewise", "own", own, DROPOUT),
    ]
    print(f"nano, {data or DOMAIN + ' dialogues'}: {STEPS} steps of {BATCH}, dropout {DROPOUT}")
    print("| what trains | loop | training loss, by quarters | held-back loss |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for adapter in RATES:
            for variant in tried:
                _row(adapter, variant, data, Path(folder))
    return 0


def _row(adapter: str, variant: Variant, data: str | None, folder: Path) -> None:
    curves: list[list[float]] = []
    held: list[float] = []
    for seed in SEEDS:
        spec = _spec(adapter, seed)
        prepared = Session(folder / "cache").prepare(spec, _source(data, folder))
        task = _task(spec, prepared)
        model = build(variant, task)
        curves.append(LOOPS[variant.loop](model, variant, task).losses)
        held.append(_loss(model, prepared.validation))
    means = [statistics.fmean(column) for column in zip(*curves, strict=True)]
    told = ", ".join(
        f"{statistics.fmean(means[i : i + STEPS // 4]):.3f}" for i in range(0, STEPS, STEPS // 4)
    )
    spread = f"{statistics.fmean(held):.3f} +- {statistics.stdev(held):.3f}"
    print(f"| {adapter} | {variant.name}, {variant.precision} | {told} | {spread} |", flush=True)


def _spec(adapter: str, seed: int) -> JobSpec:
    return parse_spec(
        {
            "seed": seed,
            "adapter": {"kind": adapter, "rank": 8, "dropout": 0.0},
            "train": {"batch_size": BATCH, "learning_rate": RATES[adapter]},
            "data": {"max_validation_examples": 64},
        }
    )


def _source(data: str | None, folder: Path) -> Source:
    if data:
        path, _, columns = data.rpartition(":")
        text, _, summary = columns.partition(",")
        return Source(path, text, summary)
    made = folder / "dialogues.jsonl"
    if not made.exists():
        lines = (json.dumps(asdict(one)) for one in generate(DOMAIN, EXAMPLES, 0))
        made.write_text("\n".join(lines), "utf-8")
    return Source(str(made), "dialogue", "summary")


def _task(spec: JobSpec, prepared: Prepared) -> StepTask:
    """The first batches of a shuffle that the seed decides: both loops see the same."""
    rows = list(range(len(prepared.train)))
    random.Random(spec.seed).shuffle(rows)
    places = (rows * 10)[: STEPS * BATCH]
    sizes = architecture_of(spec.model.name)
    assert sizes is not None
    return StepTask(spec, prepared.train.some(places), sizes)


@torch.no_grad()
def _loss(model: Any, examples: TokenizedDataset) -> float:
    """Nats per target token, in fp32 by the modules of transformers, whoever trained."""
    model = model.float().eval()
    total, tokens = 0.0, 0
    for start in range(0, len(examples), BATCH):
        part = [examples[row] for row in range(start, min(start + BATCH, len(examples)))]
        batch = collate(part, Signs.of(model.config), CPU)
        total += float(token_losses(forward(model, batch, DTYPES["fp32"]), batch).sum())
        tokens += batch.target_tokens
    return total / tokens
