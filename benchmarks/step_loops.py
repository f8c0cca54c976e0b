"""The loops that ``bench step`` times: the plain one that everybody writes, and Edgewise's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benchmarks.memory_run import forget_peak, resident_peak
from fedcore.architecture.sizes import Architecture
from fedcore.compute.memory_pages import default_pages, keep_pages, release_pages
from fedcore.methods.session import set_dropout
from fedcore.model.adapters import attach
from fedcore.model.load import load_base
from fedcore.model.parameters import trainable_parameters
from fedcore.plan.cost.step_flops import StepCost
from fedcore.plan.cost.workload import Workload
from fedcore.seeds import derive
from fedcore.spec.job import JobSpec
from fedcore.train.batches import SpecialTokens, collate, groups, steps_of
from fedcore.train.loop import TrainingTask, train_locally
from fedcore.train.telemetry import Hooks
from fedcore.train.tokenization import TokenizedDataset

CPU = torch.device("cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Variant:
    """A way to train. ``pages``: freed memory is kept by the process."""

    name: str
    loop: str
    precision: str
    dropout: float
    kernels: str = "fast"
    pages: bool = True


@dataclass(frozen=True)
class Timed:
    """One turn of a variant: seconds and needed FLOPs of its steps, memory above the process."""

    steps: int
    tokens: int
    seconds: float
    flops: int
    memory_bytes: int
    phase_s: Mapping[str, float]
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class StepTask:
    """What every variant trains on: the same examples, in the same order."""

    spec: JobSpec
    examples: TokenizedDataset
    sizes: Architecture

    def first(self, count: int) -> TokenizedDataset:
        return self.examples.some(range(count))

    @property
    def cost(self) -> StepCost:
        return Workload.of(self.spec, self.sizes, self.spec.train.precision).cost


def turn(variant: Variant, task: StepTask) -> Timed:
    """Build the model, warm up with a step, time the rest; everything is given back."""
    (keep_pages if variant.pages else default_pages)()
    release_pages()
    forget_peak()
    before = resident_peak()
    model = build(variant, task)
    first = replace(task, examples=task.first(task.spec.train.batch_size))
    LOOPS[variant.loop](model, variant, first)
    timed = LOOPS[variant.loop](model, variant, task)
    timed = replace(timed, memory_bytes=resident_peak() - before)
    del model
    release_pages()
    return timed


def build(variant: Variant, task: StepTask) -> Any:
    """The model to train. Edgewise keeps a frozen base in the precision of training."""
    adapter = task.spec.adapter
    uses_edgewise = variant.loop == "own" and adapter.family.freezes_base
    precision = DTYPES[variant.precision] if uses_edgewise else torch.float32
    base = load_base(task.spec.model.name, precision)
    model = attach(base, adapter, task.spec.seed)
    set_dropout(model, variant.dropout)
    return model


def _plain_loop(model: Any, variant: Variant, task: StepTask) -> Timed:
    """transformers, padded to the longest of a batch, torch's AdamW, as in its own examples."""
    train, flops, tokens = task.spec.train, 0, 0
    phase_s = dict.fromkeys(("forward", "backward", "optimizer"), 0.0)
    losses = []
    weights = [parameter for _, parameter in trainable_parameters(model)]
    optimizer = torch.optim.AdamW(weights, lr=train.learning_rate, weight_decay=0.0)
    signs = SpecialTokens.of(model.config)
    model.train()
    torch.manual_seed(task.spec.seed)
    order = groups(train, task.examples.lengths, derive(task.spec.seed, "order"))
    for _ in range(steps_of(train, len(task.examples))):
        (rows,) = next(order)
        batch = collate([task.examples[row] for row in rows], signs, CPU)
        marks = [time.perf_counter()]
        with torch.autocast("cpu", torch.bfloat16, variant.precision == "bf16"):
            loss = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
            ).loss
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(weights, train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        marks.append(time.perf_counter())
        losses.append(float(loss.detach()))
        tokens += batch.tokens
        flops += task.cost.training.of(batch.lengths)
        for number, name in enumerate(phase_s):
            phase_s[name] += marks[number + 1] - marks[number]
    return Timed(len(losses), tokens, sum(phase_s.values()), flops, 0, phase_s, losses)


def _edgewise(model: Any, variant: Variant, task: StepTask) -> Timed:
    """What a device runs, its measurements at every step included."""
    losses: list[float] = []
    train = replace(task.spec.train, kernels=variant.kernels)
    work = TrainingTask(
        model, task.examples, train, task.cost.training, task.spec.seed, CPU,
        DTYPES[variant.precision], variant.dropout,
    )  # fmt: skip
    hooks = Hooks(report=lambda seen: losses.append(seen.loss), report_every_s=0.0)
    done = train_locally(work, hooks)
    return Timed(done.steps, done.tokens, done.seconds, done.flops, 0, done.phase_s, losses)


LOOPS: dict[str, Callable[[Any, Variant, StepTask], Timed]] = {
    "plain": _plain_loop,
    "own": _edgewise,
}
