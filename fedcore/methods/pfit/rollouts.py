"""Rollouts of PPO: sampled summaries with log-probabilities and advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcore.architecture.sizes import Architecture
from fedcore.methods.contract import Context
from fedcore.methods.pfit.ppo import BASELINES
from fedcore.methods.pfit.reward_reader import RewardReader
from fedcore.methods.pfit.summary_policy import SampledSummaries, SummaryPolicy, swapped_weights
from fedcore.model.parameters import trainable_parameters
from fedcore.plan.cost.ppo_flops import PpoFlops
from fedcore.seeds import derive
from fedcore.train.batches import Batch, Lengths, SpecialTokens, collate
from fedcore.train.loop import chunks
from fedcore.train.telemetry import Recorder


@dataclass(frozen=True)
class Rollout:
    """Samples of some prompts. ``hidden``: the encoder's hidden states, if it is fixed.

    ``before`` and ``anchor``: log-probabilities under the sampling policy and at the received
    weights, (rows, longest). ``anchor`` is None without a KL penalty.
    """

    batch: Batch
    hidden: Tensor | None
    summaries: SampledSummaries
    before: Tensor
    anchor: Tensor | None

    @property
    def lengths(self) -> Lengths:
        """Source and target tokens of each sample."""
        samples = len(self.summaries.tokens) // len(self.batch.lengths)
        sources = [source for source, _ in self.batch.lengths for _ in range(samples)]
        return list(zip(sources, self.summaries.lengths, strict=True))


class Sampler:
    """Samples and scores summaries; the anchor is the model's weights at construction."""

    def __init__(self, context: Context, reader: RewardReader) -> None:
        self._work, self._method = context.work, context.spec.method
        self._hooks, self._reader = context.hooks, reader
        self._live: Mapping[str, torch.nn.Parameter] = dict(
            trainable_parameters(context.work.model)
        )
        self._received = context.received() if self._method.anchor else {}
        max_tokens = context.spec.data.max_target_tokens
        self.policy = SummaryPolicy(context.work, self._method.temperature, max_tokens)
        sizes = Architecture.from_config(context.work.model.config.to_dict())
        self.effort = PpoFlops.of(sizes, context.work.cost, self.policy.encoder_is_fixed)
        self._baseline = BASELINES[self._method.baseline]()
        seed = derive(context.work.seed, "sample")
        self._generator = torch.Generator(context.work.device).manual_seed(seed)
        self.rewards: list[float] = []

    @property
    def mean_reward(self) -> float:
        """Of all samples so far."""
        return sum(self.rewards) / len(self.rewards)

    def rollouts(self, rows: Sequence[int], recorder: Recorder) -> list[tuple[Rollout, Tensor]]:
        """Rollouts of these examples, with advantages (rows, 1).

        The prompts are split so that the samples of a part fit the memory.
        """
        samples = self._work.train.micro_batch or self._work.micro_batch
        prompts = max(1, samples // self._method.samples) if samples else len(rows)
        parts = list(chunks(rows, prompts))
        rollouts = [self._rollout(part, recorder) for part in parts]
        values = []
        for part, one in zip(parts, rollouts, strict=True):
            for place, tokens in enumerate(one.summaries.tokens.tolist()):
                summary = tokens[: one.summaries.lengths[place]]
                values.append(self._reader.reward(part[place // self._method.samples], summary))
        # (prompts, samples)
        rewards = torch.tensor(values, dtype=torch.float64).view(-1, self._method.samples)
        self.rewards += rewards.flatten().tolist()
        advantages = self._baseline(rewards).float().to(self._work.device)
        recorder.clock.mark("loss")
        shares = advantages.split([len(part) for part in parts])
        return [(one, share.reshape(-1, 1)) for one, share in zip(rollouts, shares, strict=True)]

    @torch.no_grad()
    def _rollout(self, rows: Sequence[int], recorder: Recorder) -> Rollout:
        policy, work = self.policy, self._work
        signs = SpecialTokens.of(work.model.config)
        batch = collate([work.examples[row] for row in rows], signs, work.device)
        recorder.clock.mark("load")
        hidden = policy.encode(batch)
        count = self._method.samples
        summaries = policy.sample(hidden, batch, count, self._generator, self._hooks)
        before = policy.log_probs(hidden, batch, summaries)
        fixed = hidden if policy.encoder_is_fixed else None
        anchor = None
        if self._method.anchor:
            with swapped_weights(self._live, self._received):
                received = policy.encode(batch) if fixed is None else fixed
                anchor = policy.log_probs(received, batch, summaries)
        rollout = Rollout(batch, fixed, summaries, before, anchor)
        recorder.count(0, self.effort.sampling(batch.lengths, rollout.lengths, anchor is not None))
        recorder.clock.mark("forward")
        return rollout
