"""Local training of a round: optimizer steps on one device's examples, measured as they run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcore.compute.determinism import seed_torch
from fedcore.errors import TrainingError
from fedcore.model.parameters import trainable_parameters
from fedcore.plan.cost.flops import Cost
from fedcore.seeds import derive
from fedcore.spec.options.train import TrainSpec
from fedcore.train.batches import groups, steps_of
from fedcore.train.kernels import KernelContext, Kernels, kernels_of, micro_batches
from fedcore.train.telemetry import Hooks, LoopPosition, Recorder
from fedcore.train.tokenization import TokenizedDataset

Weights = Mapping[str, Tensor]
Penalty = Callable[[Weights], Tensor | None]

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class TrainingTask:
    """One device's training of one round. ``seed`` sets order and dropout, ``cost`` counts FLOPs.

    ``dropout`` is the base model's, not LoRA's. ``micro_batch`` is the most examples in one forward
    pass; 0: the whole batch.
    """

    model: Any
    examples: TokenizedDataset
    train: TrainSpec
    cost: Cost
    seed: int
    device: torch.device
    precision: torch.dtype
    dropout: float = 0.0
    micro_batch: int = 0


@dataclass(frozen=True)
class TrainSummary:
    """Sums over a round's local training. ``loss`` is the mean over its steps.

    ``tokens`` and ``flops`` leave padding out; ``phase_s`` is seconds by phase.
    """

    steps: int
    loss: float
    tokens: int
    flops: int
    seconds: float
    phase_s: dict[str, float]


def no_penalty(weights: Weights) -> None:
    """The task loss alone."""
    del weights


def train_locally(
    task: TrainingTask, hooks: Hooks, penalty: Penalty = no_penalty, kernels: Kernels | None = None
) -> TrainSummary:
    """Train the model in place from its present weights; ``penalty`` is added to the loss.

    ``kernels`` compute the loss, by default those of the job's options. Raises TrainingError for a
    loss or gradient that is not finite, Stopped when asked to stop.
    """
    seed_torch(derive(task.seed, "dropout"))
    task.model.train()
    try:
        return _SupervisedLoop(task, hooks, penalty, kernels or job_kernels(task)).run()
    finally:
        task.model.eval()
        task.model.zero_grad(set_to_none=True)


def job_kernels(task: TrainingTask, purpose: str = "dropout") -> Kernels:
    """The kernels that a job's options select for training; ``purpose`` seeds their dropout."""
    train, seed = task.train, derive(task.seed, purpose)
    context = KernelContext(
        task.model, task.device, task.precision, task.dropout, train.checkpointing, seed
    )
    return kernels_of(train.kernels, context)


def schedule(train: TrainSpec, steps_total: int) -> Callable[[int], float]:
    """Factor on the learning rate at each step (0 is the first) after a linear warm-up."""

    def factor(step: int) -> float:
        if step < train.warmup_steps:
            return (step + 1) / train.warmup_steps
        span = max(1, steps_total - train.warmup_steps)
        done = min(1.0, (step - train.warmup_steps) / span)
        if train.schedule == "linear":
            return 1.0 - done
        return 0.5 * (1 + math.cos(math.pi * done)) if train.schedule == "cosine" else 1.0

    return factor


class _SupervisedLoop:
    """The optimizer steps of one round, and what is measured of them."""

    def __init__(
        self, task: TrainingTask, hooks: Hooks, penalty: Penalty, kernels: Kernels
    ) -> None:
        self.task, self.hooks, self.penalty, self.kernels = task, hooks, penalty, kernels
        self.weights = dict(trainable_parameters(task.model))
        train = task.train
        self.optimizer = OPTIMIZERS[train.optimizer](
            list(self.weights.values()),
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
            fused=train.kernels == "fast",
        )
        self.steps_total = steps_of(train, len(task.examples))
        self.recorder = Recorder(task.device, hooks)
        self.unchecked: list[tuple[int, Tensor, Tensor]] = []  # step, loss, gradient norm
        self.examples_seen = 0

    def run(self) -> TrainSummary:
        """Each optimizer step is on the mean over all target tokens of its batches."""
        task, train = self.task, self.task.train
        lengths, clip_norm = task.examples.lengths, train.clip_norm or math.inf
        order = groups(train, lengths, derive(task.seed, "order"))
        factor = schedule(train, self.steps_total)
        for step in range(self.steps_total):
            self.hooks.check_stop("local training")
            for group in self.optimizer.param_groups:
                group["lr"] = train.learning_rate * factor(step)
            batches = self._micro_batches(next(order))
            tokens = sum(lengths[row][1] for rows in batches for row in rows)
            losses = [self._backward(rows, tokens, len(batches)) for rows in batches]
            norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.recorder.clock.mark("optimizer")
            self.unchecked.append((step, torch.stack(losses).sum(), norm))
            if step + 1 == self.steps_total or self.recorder.due:
                self._check_finite()
                rate = float(self.optimizer.param_groups[0]["lr"])
                position = LoopPosition(
                    step + 1, self.steps_total, self.examples_seen / len(lengths), rate
                )
                self.recorder.send(position, [float(loss) for _, loss, _ in self.unchecked])
                self.unchecked.clear()
            elif task.device.type == "cpu":  # reading an accelerator's loss would stall it
                self._check_finite()
        totals = self.recorder.totals
        loss, seconds = totals.loss_sum / totals.steps, self.recorder.elapsed_s
        return TrainSummary(
            totals.steps, loss, totals.tokens, totals.flops, seconds, totals.phase_s
        )

    def _micro_batches(self, batches: Sequence[Sequence[int]]) -> list[list[int]]:
        """The batches of an optimizer step, divided where memory requires it."""
        train, lengths = self.task.train, self.task.examples.lengths
        most = train.micro_batch or self.task.micro_batch
        return [
            part
            for rows in batches
            for part in micro_batches(
                rows, [lengths[row] for row in rows], most, train.micro_tokens
            )
        ]

    def _backward(self, rows: Sequence[int], tokens: int, batches: int) -> Tensor:
        """Add one batch's gradients; returns its share of the step's loss."""
        clock, lengths = self.recorder.clock, self.task.examples.lengths
        batch = self.kernels.load([self.task.examples[row] for row in rows])
        clock.mark("load")
        out = self.kernels.forward(batch, self.examples_seen)
        clock.mark("forward")
        loss = self.kernels.loss(out, batch) / tokens
        penalty = self.penalty(self.weights)
        objective = loss if penalty is None else loss + penalty / batches
        clock.mark("loss")
        objective.backward()  # type: ignore[no-untyped-call]
        clock.mark("backward")
        sizes = [lengths[row] for row in rows]
        self.recorder.count(sum(map(sum, sizes)), self.task.cost.of(sizes))
        self.examples_seen += len(rows)
        return loss.detach()

    def _check_finite(self) -> None:
        """Raise for the first unreported step whose loss or gradient is not finite."""
        for step, loss, norm in self.unchecked:
            cause = ""
            if not math.isfinite(float(loss)):
                cause = f"the loss is {float(loss)}"
            elif not math.isfinite(float(norm)):
                cause = f"the gradient's norm is {float(norm)}"
            if cause:
                raise TrainingError(
                    f"step {step + 1} of {self.steps_total}: {cause}; lower the learning rate "
                    f"(now {self.task.train.learning_rate:g}), clip gradients, or look at the data"
                )


def chunks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive pieces of at most ``size``."""
    for i in range(0, len(rows), size):
        yield rows[i : i + size]
