"""PFIT's local training: PPO on a device's own weighting of rewards.

Personalised federated instruction tuning, arXiv 2404.13238 v1. A device samples summaries of its
own examples, scores them by its rewards, and makes the better ones more likely. A KL penalty to the
received weights limits the change, and so does ``method.distance``
(``fedcore.methods.pfit.method``).

Our choices, where the paper leaves them open: each optimizer step takes the mean over the tokens of
its samples. New samples are drawn every ``method.passes`` steps. There is no dropout. The first
``method.supervised_steps`` steps of a round train on the references.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedcore.errors import TrainingError
from fedcore.methods.contract import Context, LossTerm
from fedcore.methods.pfit.ppo import clipped_surrogate, kl_penalty
from fedcore.methods.pfit.reward_reader import RewardReader
from fedcore.methods.pfit.rollouts import Rollout, Sampler
from fedcore.model.parameters import trainable_parameters
from fedcore.seeds import derive
from fedcore.train.batches import groups, steps_of
from fedcore.train.loop import OPTIMIZERS, Penalty, TrainSummary, schedule, train_locally
from fedcore.train.telemetry import LoopPosition, Measurement, Recorder
from fedcore.train.tokenization import Prepared


class Reinforced(NamedTuple):
    """The result of a round of PFIT.

    ``summary``: its loss is the mean negative log-likelihood of the samples, in nats per token, as
    PPO's own loss stays near 0. ``rewards``: ``reward`` is the mean of the samples. In evaluated
    rounds ``reward_before`` and ``reward_after`` are the means of greedy summaries of the
    validation part, by the received and by the trained weights.
    """

    summary: TrainSummary
    rewards: dict[str, float]


def reinforce(context: Context, prepared: Prepared, tokenizer: Any, term: LossTerm) -> Reinforced:
    """Train the model in place from its current weights; the term is added to every loss.

    Raises TrainingError for a reward, loss or gradient that is not finite, Stopped if training is
    stopped.
    """
    spec, work = context.spec, context.work
    reader = RewardReader.of(spec, prepared, tokenizer)
    work.model.eval()  # no dropout
    due = spec.evaluation.due(context.round_number, spec.rounds)
    rewards = {"reward_before": reader.mean_reward(work, context.hooks)} if due else {}
    sampler = Sampler(context, reader)
    total = steps_of(work.train, len(work.examples))
    supervised_steps = min(spec.method.supervised_steps, total - 1)
    first = _train_supervised(context, term, supervised_steps, total) if supervised_steps else None
    loop = _PpoLoop(context, sampler, term.penalty, range(supervised_steps, total), first)
    try:
        summary = loop.run()
    finally:
        work.model.zero_grad(set_to_none=True)
    rewards["reward"] = sampler.mean_reward
    if due:
        rewards["reward_after"] = reader.mean_reward(work, context.hooks)
    return Reinforced(summary, rewards)


def _train_supervised(context: Context, term: LossTerm, steps: int, total: int) -> TrainSummary:
    """The supervised steps, reported as the first of ``total``."""
    hooks = context.hooks

    def report(measurement: Measurement) -> None:
        hooks.report(replace(measurement, steps_total=total))

    work = replace(context.work, train=replace(context.work.train, local_steps=steps))
    return train_locally(work, replace(hooks, report=report), term.penalty, term.kernels)


class _PpoLoop:
    """PPO's steps of a round, numbered over the whole round.

    ``first``: the summary of the supervised steps before them (None: there were none).
    """

    def __init__(
        self,
        context: Context,
        sampler: Sampler,
        penalty: Penalty,
        steps: range,
        first: TrainSummary | None,
    ) -> None:
        self.work, self.hooks, self.method = context.work, context.hooks, context.spec.method
        self.sampler, self.penalty, self.steps, self.first = sampler, penalty, steps, first
        train = self.work.train
        self.weights = dict(trainable_parameters(self.work.model))
        self.optimizer = OPTIMIZERS[train.optimizer](
            list(self.weights.values()), lr=train.learning_rate, weight_decay=train.weight_decay
        )
        self.factor = schedule(train, steps.stop)
        hooks = replace(self.hooks, report=self._report) if first else self.hooks
        self.recorder = Recorder(self.work.device, hooks)
        self.losses: list[float] = []  # of the steps not yet reported

    def _report(self, measurement: Measurement) -> None:
        """Report with the time of the supervised steps added."""
        assert self.first is not None
        elapsed_s = measurement.elapsed_s + self.first.seconds
        self.hooks.report(replace(measurement, elapsed_s=elapsed_s))

    def run(self) -> TrainSummary:
        """Returns the totals of the round; the loss is that of PPO's steps alone."""
        lengths = self.work.examples.lengths
        order = groups(self.work.train, lengths, derive(self.work.seed, "order"))
        rollouts: list[tuple[Rollout, Tensor]] = []
        seen = 0
        for step in self.steps:
            self.hooks.check_stop("local training")
            if (step - self.steps.start) % self.method.passes == 0:
                rows = [row for batch in next(order) for row in batch]
                rollouts, seen = self.sampler.rollouts(rows, self.recorder), seen + len(rows)
            rate = self.work.train.learning_rate * self.factor(step)
            self.losses.append(self._step(step, rate, rollouts))
            if step + 1 == self.steps.stop or self.recorder.due:
                pace = LoopPosition(step + 1, self.steps.stop, seen / len(lengths), rate)
                self.recorder.send(pace, self.losses, self.sampler.mean_reward)
                self.losses.clear()
        totals = self.recorder.totals
        loss = totals.loss_sum / totals.steps
        seconds = self.recorder.elapsed_s
        summary = TrainSummary(
            totals.steps, loss, totals.tokens, totals.flops, seconds, totals.phase_s
        )
        if self.first is None:
            return summary
        first = self.first
        return TrainSummary(
            first.steps + summary.steps,
            summary.loss,
            first.tokens + summary.tokens,
            first.flops + summary.flops,
            first.seconds + summary.seconds,
            {name: value + first.phase_s[name] for name, value in summary.phase_s.items()},
        )

    def _step(self, step: int, rate: float, rollouts: Sequence[tuple[Rollout, Tensor]]) -> float:
        """One optimizer step on the mean over all tokens; returns their mean surprisal in nats."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = sum(sum(one.summaries.lengths) for one, _ in rollouts)
        shares = [self._gradients(*pair, total, len(rollouts)) for pair in rollouts]
        loss, surprisal = (math.fsum(column) for column in zip(*shares, strict=True))
        limit = self.work.train.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights.values(), limit))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {step + 1} of {self.steps.stop}: the loss is {loss}, the gradient's norm "
                f"{norm}; lower the learning rate (now {rate:g}) or raise method.anchor"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.recorder.clock.mark("optimizer")
        return surprisal

    def _gradients(
        self, one: Rollout, advantages: Tensor, total: int, parts: int
    ) -> tuple[float, float]:
        """Add the gradients of a rollout; returns its share of the loss and of the surprisal."""
        clock, policy = self.recorder.clock, self.sampler.policy
        self.hooks.check_stop("local training")
        hidden = policy.encode(one.batch) if one.hidden is None else one.hidden
        now = policy.log_probs(hidden, one.batch, one.summaries)
        clock.mark("forward")
        surrogate = clipped_surrogate(now, one.before, advantages, self.method.clip)
        if one.anchor is not None:
            surrogate = surrogate - self.method.anchor * kl_penalty(now, one.anchor)
        loss = -surrogate.masked_fill(~one.summaries.mask, 0.0).sum() / total
        penalty = self.penalty(self.weights)
        objective = loss if penalty is None else loss + penalty / parts
        clock.mark("loss")
        objective.backward()  # type: ignore[no-untyped-call]
        clock.mark("backward")
        lengths = one.lengths
        flops = self.sampler.effort.learning(one.batch.lengths, lengths)
        self.recorder.count(sum(map(sum, lengths)), flops)
        return float(loss.detach()), float(-now.detach().sum() / total)
