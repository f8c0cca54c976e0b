"""Does the faster loop learn as much? ``nano`` on text, both loops, three seeds."""

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
from fedcore.spec.parse import parse_spec
from fedcore.train.batches import SpecialTokens, collate, forward, token_losses
from fedcore.train.datasets import Source
from fedcore.train.tokenization import TokenizedDataset

SEEDS, STEPS, BATCH, DROPOUT = (0, 1, 2), 40, 8, 0.1
RATES = {"lora": 5e-3, "full": 1e-3}
DOMAIN, EXAMPLES = "clinic", 600


def run(data: str | None) -> int:
    """Print the losses on validation examples before and after, mean and deviation over seeds."""
    precision = "bf16" if prefers_bf16() else "fp32"
    tried = [
        Variant("plain loop", "plain", "fp32", DROPOUT, pages=False),
        Variant("Edgewise", "own", precision, DROPOUT),
    ]
    print(f"nano, {data or DOMAIN + ' dialogues'}: {STEPS} steps of {BATCH}, dropout {DROPOUT}")
    print("| what trains | loop | training loss, by quarters | validation loss |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for adapter in RATES:
            for variant in tried:
                _row(adapter, variant, data, Path(folder))
    return 0


def _row(adapter: str, variant: Variant, data: str | None, folder: Path) -> None:
    curves: list[list[float]] = []
    validation_losses: list[float] = []
    for seed in SEEDS:
        spec = parse_spec(
            {
                "seed": seed,
                "adapter": {"kind": adapter, "rank": 8, "dropout": 0.0},
                "train": {"batch_size": BATCH, "learning_rate": RATES[adapter]},
                "data": {"max_validation_examples": 64},
            }
        )
        prepared = Session(folder / "cache").prepare(spec, _source(data, folder))
        # The first batches of a shuffle that the seed decides: both loops see the same.
        rows = list(range(len(prepared.train)))
        random.Random(spec.seed).shuffle(rows)
        places = (rows * 10)[: STEPS * BATCH]
        sizes = architecture_of(spec.model.name)
        assert sizes is not None
        task = StepTask(spec, prepared.train.some(places), sizes)
        model = build(variant, task)
        curves.append(LOOPS[variant.loop](model, variant, task).losses)
        validation_losses.append(_loss(model, prepared.validation))
    means = [statistics.fmean(column) for column in zip(*curves, strict=True)]
    quarters = ", ".join(
        f"{statistics.fmean(means[i : i + STEPS // 4]):.3f}" for i in range(0, STEPS, STEPS // 4)
    )
    spread = (
        f"{statistics.fmean(validation_losses):.3f} +- {statistics.stdev(validation_losses):.3f}"
    )
    print(
        f"| {adapter} | {variant.name}, {variant.precision} | {quarters} | {spread} |", flush=True
    )


def _source(data: str | None, folder: Path) -> Source:
    if data:
        path, _, columns = data.rpartition(":")
        text, _, summary = columns.partition(",")
        return Source(path, text, summary)
    generated = folder / "dialogues.jsonl"
    if not generated.exists():
        lines = (json.dumps(asdict(one)) for one in generate(DOMAIN, EXAMPLES, 0))
        generated.write_text("\n".join(lines), "utf-8")
    return Source(str(generated), "dialogue", "summary")


@torch.no_grad()
def _loss(model: Any, examples: TokenizedDataset) -> float:
    """Nats per target token, in fp32 by the modules of transformers, whoever trained."""
    model = model.float().eval()
    total, tokens = 0.0, 0
    for start in range(0, len(examples), BATCH):
        part = [examples[row] for row in range(start, min(start + BATCH, len(examples)))]
        batch = collate(part, SpecialTokens.of(model.config), CPU)
        total += float(token_losses(forward(model, batch, DTYPES["fp32"]), batch).sum())
        tokens += batch.target_tokens
    return total / tokens
