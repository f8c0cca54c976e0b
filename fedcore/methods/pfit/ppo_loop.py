"""PFIT's local training: PPO on a device's own weighting of rewards.

Personalised federated instruction tuning, arXiv 2404.13238 v1. A device draws summaries of its own
examples, scores them by its rewards, and makes the better ones more likely; a KL term holds it near
the weights it received, and so does ``method.distance`` (``fedcore.methods.objectives``).

Our choices, where the paper leaves them open: each optimizer step takes the mean over the tokens of
its samples; new samples are drawn every ``method.passes`` steps; nothing drops out while a policy
is compared with itself; the first ``method.supervised_steps`` of a round learn from the references.
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
from fedcore.train.telemetry import Hooks, LoopPosition, Measurement, Recorder
from fedcore.train.tokenization import Prepared


class Reinforced(NamedTuple):
    """A round of PFIT. The summary's loss is the mean surprise of its samples under the policy, in
    nats per token: PPO's own is about 0 whatever is learned.

    ``rewards``: ``reward`` is the mean of its samples; where the round is evaluated,
    ``reward_before`` and ``reward_after`` are the means of greedy summaries of the validation part,
    by the received weights and by the device's own.
    """

    summary: TrainSummary
    rewards: dict[str, float]


def reinforce(context: Context, prepared: Prepared, tokenizer: Any, term: LossTerm) -> Reinforced:
    """Train the model in place from the weights it holds; the term is added to every loss.

    Raises TrainingError for a reward, loss or gradient that is not finite, Stopped when asked to.
    """
    spec, work = context.spec, context.work
    reader = RewardReader.of(spec, prepared, tokenizer)
    work.model.eval()  # no dropout
    due = spec.evaluation.due(context.round_number, spec.rounds)
    rewards = {"reward_before": reader.mean_reward(work, context.hooks)} if due else {}
    sampler = Sampler(context, reader)
    total = steps_of(work.train, len(work.examples))
    taught = min(spec.method.supervised_steps, total - 1)
    first = _teach(context, term, taught, total) if taught else None
    try:
        hooks = _later(context.hooks, first)
        loop = _PpoLoop(replace(context, hooks=hooks), sampler, term.penalty, range(taught, total))
        summary = loop.run()
    finally:
        work.model.zero_grad(set_to_none=True)
    rewards["reward"] = sampler.mean_reward
    if due:
        rewards["reward_after"] = reader.mean_reward(work, context.hooks)
    return Reinforced(_joined(first, summary), rewards)


def _teach(context: Context, term: LossTerm, steps: int, total: int) -> TrainSummary:
    """The supervised steps, reported as the first of all."""
    hooks = context.hooks

    def report(measured: Measurement) -> None:
        hooks.report(replace(measured, steps_total=total))

    train = replace(context.work.train, local_steps=steps)
    told = replace(hooks, report=report)
    return train_locally(replace(context.work, train=train), told, term.penalty, term.kernels)


def _later(hooks: Hooks, first: TrainSummary | None) -> Hooks:
    """Hooks for which the round began with the supervised steps."""
    if first is None:
        return hooks
    before_s = first.seconds

    def report(measured: Measurement) -> None:
        hooks.report(replace(measured, elapsed_s=measured.elapsed_s + before_s))

    return replace(hooks, report=report)


def _joined(first: TrainSummary | None, second: TrainSummary) -> TrainSummary:
    """Both parts of a round; the loss is that of the second, a mean of both would say nothing."""
    if first is None:
        return second
    phases = {name: value + first.phase_s[name] for name, value in second.phase_s.items()}
    return TrainSummary(
        first.steps + second.steps,
        second.loss,
        first.tokens + second.tokens,
        first.flops + second.flops,
        first.seconds + second.seconds,
        phases,
    )


class _PpoLoop:
    """PPO's steps of a round, numbered as in the whole of it."""

    def __init__(self, context: Context, sampler: Sampler, penalty: Penalty, steps: range) -> None:
        self.work, self.hooks, self.method = context.work, context.hooks, context.spec.method
        self.sampler, self.penalty, self.steps = sampler, penalty, steps
        train = self.work.train
        self.weights = dict(trainable_parameters(self.work.model))
        self.optimizer = OPTIMIZERS[train.optimizer](
            list(self.weights.values()), lr=train.learning_rate, weight_decay=train.weight_decay
        )
        self.factor = schedule(train, steps.stop)
        self.recorder = Recorder(self.work.device, self.hooks)
        self.losses: list[float] = []  # surprises of the steps that are not reported yet

    def run(self) -> TrainSummary:
        lengths = self.work.examples.lengths
        order = groups(self.work.train, lengths, derive(self.work.seed, "order"))
        drawn: list[tuple[Rollout, Tensor]] = []
        seen = 0
        for step in self.steps:
            self.hooks.check_stop("local training")
            if (step - self.steps.start) % self.method.passes == 0:
                rows = [row for batch in next(order) for row in batch]
                drawn, seen = self.sampler.draw(rows, self.recorder), seen + len(rows)
            rate = self.work.train.learning_rate * self.factor(step)
            self.losses.append(self._step(step, rate, drawn))
            if step + 1 == self.steps.stop or self.recorder.due:
                pace = LoopPosition(step + 1, self.steps.stop, seen / len(lengths), rate)
                self.recorder.send(pace, self.losses, self.sampler.mean_reward)
                self.losses.clear()
        totals = self.recorder.totals
        return TrainSummary(
            totals.steps,
            totals.loss_sum / totals.steps,
            totals.tokens,
            totals.flops,
            self.recorder.elapsed_s,
            totals.phase_s,
        )

    def _step(self, step: int, rate: float, drawn: Sequence[tuple[Rollout, Tensor]]) -> float:
        """One optimizer step, the mean over all tokens of the samples; returns their surprise."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = sum(sum(one.drawn.lengths) for one, _ in drawn)
        found = [self._gradients(*pair, total, len(drawn)) for pair in drawn]
        loss, surprise = (math.fsum(column) for column in zip(*found, strict=True))
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
        return surprise

    def _gradients(
        self, one: Rollout, advantages: Tensor, total: int, parts: int
    ) -> tuple[float, float]:
        """Some samples' share of the loss, and of the surprise."""
        clock, policy = self.recorder.clock, self.sampler.policy
        self.hooks.check_stop("local training")
        hidden = policy.encode(one.batch) if one.hidden is None else one.hidden
        now = policy.log_probs(hidden, one.batch, one.drawn)
        clock.mark("forward")
        wanted = clipped_surrogate(now, one.before, advantages, self.method.clip)
        if one.anchor is not None:
            wanted = wanted - self.method.anchor * kl_penalty(now, one.anchor)
        loss = -wanted.masked_fill(~one.drawn.counted, 0.0).sum() / total
        penalty = self.penalty(self.weights)
        objective = loss if penalty is None else loss + penalty / parts
        clock.mark("loss")
        objective.backward()  # type: ignore[no-untyped-call]
        clock.mark("backward")
        lengths = one.lengths
        flops = self.sampler.effort.learning(one.batch.lengths, lengths)
        self.recorder.count(sum(map(sum, lengths)), flops)
        return float(loss.detach()), float(-now.detach().sum() / total)
