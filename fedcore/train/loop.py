"""The local loop of a round: optimizer steps on one device's examples, measured as they run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcore.compute.device import seed_torch
from fedcore.errors import TrainingError
from fedcore.model.parameters import trainable_parameters
from fedcore.plan.cost.flops import Cost
from fedcore.seeds import derive
from fedcore.spec.options.train import TrainSpec
from fedcore.train.batches import groups, steps_of
from fedcore.train.kernels import KernelContext, Kernels, kernels_of, pieces
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
    """One device's task of one round. ``seed`` decides order and dropout, ``cost`` counts FLOPs.

    ``dropout`` is the model's own; ``micro_batch``: examples at a time at most, 0: the batch.
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
    """What a round's local training was, in sums. ``loss`` is the mean over its steps.

    ``tokens`` and ``flops`` leave padding out; ``phase_s`` are seconds per phase.
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
    work: TrainingTask, hooks: Hooks, penalty: Penalty = no_penalty, kernels: Kernels | None = None
) -> TrainSummary:
    """Train the model in place from the weights it holds now; ``penalty`` is added to the loss.

    ``kernels`` say how the loss is computed, where not as the job's options do.
    Raises TrainingError for a loss or gradient that is not finite, Stopped when asked to stop.
    """
    seed_torch(derive(work.seed, "dropout"))
    work.model.train()
    try:
        return _SupervisedLoop(work, hooks, penalty, kernels or job_kernels(work)).run()
    finally:
        work.model.eval()
        work.model.zero_grad(set_to_none=True)


def job_kernels(work: TrainingTask, purpose: str = "dropout") -> Kernels:
    """How a job's options have the loss computed in training; ``purpose`` seeds its dropout."""
    train, seed = work.train, derive(work.seed, purpose)
    task = KernelContext(
        work.model, work.device, work.precision, work.dropout, train.checkpointing, seed
    )
    return kernels_of(train.kernels, task)


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
    def __init__(
        self, work: TrainingTask, hooks: Hooks, penalty: Penalty, kernels: Kernels
    ) -> None:
        self.work, self.hooks, self.penalty, self.kernels = work, hooks, penalty, kernels
        self.weights = dict(trainable_parameters(work.model))
        train = work.train
        self.optimizer = OPTIMIZERS[train.optimizer](
            list(self.weights.values()),
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
            fused=train.kernels == "fast",
        )
        self.steps_total = steps_of(train, len(work.examples))
        self.factor = schedule(train, self.steps_total)
        self.recorder = Recorder(work.device, hooks)
        self.pending: list[tuple[int, Tensor, Tensor]] = []
        self.seen = 0

    def run(self) -> TrainSummary:
        examples, train = self.work.examples, self.work.train
        order = groups(train, examples.lengths, derive(self.work.seed, "order"))
        for step in range(self.steps_total):
            self.hooks.check_stop("local training")
            self._step(step, self._pieces(next(order)))
            last = step + 1 == self.steps_total
            if last or self.recorder.due:
                self._send(step)
            elif self.work.device.type == "cpu":
                self._check()
        totals = self.recorder.totals
        loss = totals.loss_sum / totals.steps
        seconds = self.recorder.elapsed_s
        return TrainSummary(
            totals.steps, loss, totals.tokens, totals.flops, seconds, totals.phase_s
        )

    def _pieces(self, group: Sequence[Sequence[int]]) -> list[list[int]]:
        """The batches of an optimizer step, divided where memory asks for it."""
        train, lengths = self.work.train, self.work.examples.lengths
        most = train.micro_batch or self.work.micro_batch
        found: list[list[int]] = []
        for rows in group:
            found += pieces(rows, [lengths[row] for row in rows], most, train.micro_tokens)
        return found

    def _step(self, step: int, parts: Sequence[Sequence[int]]) -> None:
        """One optimizer step: the mean over all target tokens of its batches."""
        clock = self.recorder.clock
        for group in self.optimizer.param_groups:
            group["lr"] = self.work.train.learning_rate * self.factor(step)
        lengths = self.work.examples.lengths
        total = sum(lengths[row][1] for rows in parts for row in rows)
        losses = [self._gradients(rows, total, len(parts)) for rows in parts]
        norm = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        clock.mark("optimizer")
        self.pending.append((step, torch.stack(losses).sum(), norm))

    def _gradients(self, rows: Sequence[int], total: int, parts: int) -> Tensor:
        clock, lengths = self.recorder.clock, self.work.examples.lengths
        batch = self.kernels.load([self.work.examples[row] for row in rows])
        clock.mark("load")
        out = self.kernels.forward(batch, self.seen)
        clock.mark("forward")
        loss = self.kernels.loss(out, batch) / total
        penalty = self.penalty(self.weights)
        objective = loss if penalty is None else loss + penalty / parts
        clock.mark("loss")
        objective.backward()  # type: ignore[no-untyped-call]
        clock.mark("backward")
        sizes = [lengths[row] for row in rows]
        self.recorder.count(sum(map(sum, sizes)), self.work.cost.of(sizes))
        self.seen += len(rows)
        return loss.detach()

    def _clip(self) -> Tensor:
        """Scale the gradients to the clipping norm; returns their norm before."""
        limit = self.work.train.clip_norm or math.inf
        return torch.nn.utils.clip_grad_norm_(self.weights.values(), limit)

    def _check(self) -> None:
        """Raise for the first step since the last check whose loss or gradient is not finite."""
        for step, loss, norm in self.pending:
            cause = _cause(float(loss), float(norm))
            if cause:
                raise TrainingError(
                    f"step {step + 1} of {self.steps_total}: {cause}; lower the learning rate "
                    f"(now {self.work.train.learning_rate:g}), clip gradients, or look at the data"
                )

    def _send(self, step: int) -> None:
        self._check()
        rate = float(self.optimizer.param_groups[0]["lr"])
        epoch = self.seen / len(self.work.examples)
        losses = [float(loss) for _, loss, _ in self.pending]
        self.recorder.send(LoopPosition(step + 1, self.steps_total, epoch, rate), losses)
        self.pending.clear()


def _cause(loss: float, norm: float) -> str:
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return "" if math.isfinite(norm) else f"the gradient's norm is {norm}"


def chunks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive pieces of at most ``size``."""
    for i in range(0, len(rows), size):
        yield rows[i : i + size]
