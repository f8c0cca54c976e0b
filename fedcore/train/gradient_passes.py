"""Passes over a device's training examples that change no weight."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fedcore.seeds import derive
from fedcore.train.kernels import KernelContext, kernels_of, micro_batches
from fedcore.train.loop import TrainingTask
from fedcore.train.telemetry import Hooks

MAX_EXAMPLES = 256  # more would add little accuracy and cost as much as training


@torch.no_grad()
def mean_loss(task: TrainingTask, hooks: Hooks) -> float:
    """Mean token loss (nats) of the model as it is, without dropout, on at most MAX_EXAMPLES."""
    losses = tokens = 0.0
    for loss, count in _losses(task, hooks):
        losses += float(loss)
        tokens += count
    return losses / tokens


def each_gradient(task: TrainingTask, hooks: Hooks, use: Callable[[float], None]) -> None:
    """For each batch leave its mean loss's gradients in ``.grad`` and call ``use(share)``.

    ``share`` is the batch's share of the target tokens; the gradients are cleared after.
    """
    rows = _rows(task)
    total = sum(task.examples.lengths[row][1] for row in rows)
    for loss, count in _losses(task, hooks):
        (loss / count).backward()  # type: ignore[no-untyped-call]
        use(count / total)
        task.model.zero_grad(set_to_none=True)


def _losses(task: TrainingTask, hooks: Hooks) -> Iterator[tuple[Tensor, int]]:
    """The summed loss of one batch after another, and its target tokens."""
    task.model.eval()
    train, lengths = task.train, task.examples.lengths
    context = KernelContext(task.model, task.device, task.precision, 0.0, train.checkpointing, 0)
    kernels = kernels_of(train.kernels, context)
    most = train.micro_batch or task.micro_batch or train.batch_size
    rows = _rows(task)
    for part in micro_batches(rows, [lengths[row] for row in rows], most, train.micro_tokens):
        hooks.check_stop("a pass over the data")
        batch = kernels.load([task.examples[row] for row in part])
        loss = kernels.loss(kernels.forward(batch, 0), batch)
        yield loss, sum(lengths[row][1] for row in part)


def _rows(task: TrainingTask) -> list[int]:
    """The same examples at every pass of a round."""
    count = len(task.examples)
    chosen = random.Random(derive(task.seed, "pass"))
    return sorted(chosen.sample(range(count), min(count, MAX_EXAMPLES)))
