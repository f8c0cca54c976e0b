"""Samples of a device's own summaries, with what PPO needs to know of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcore.architecture.sizes import Architecture
from fedcore.methods.contract import Context
from fedcore.methods.pfit.ppo import BASELINES
from fedcore.methods.pfit.reward_reader import RewardReader
from fedcore.methods.pfit.summary_policy import SampledSummaries, SummaryPolicy, standing_at
from fedcore.model.parameters import trainable_parameters
from fedcore.plan.cost.ppo_flops import PpoFlops
from fedcore.seeds import derive
from fedcore.train.batches import Batch, Lengths, Signs, collate
from fedcore.train.loop import chunks
from fedcore.train.telemetry import Recorder


@dataclass(frozen=True)
class Rollout:
    """Samples of some prompts. ``hidden`` is the encoder's answer, where it is fixed.

    ``before`` and ``anchor`` are log-probabilities under the policy that drew and at the received
    weights, (rows, longest); ``anchor`` is None where nothing is held to it.
    """

    batch: Batch
    hidden: Tensor | None
    drawn: SampledSummaries
    before: Tensor
    anchor: Tensor | None

    @property
    def lengths(self) -> Lengths:
        """Source and target tokens of each sample."""
        samples = len(self.drawn.tokens) // len(self.batch.lengths)
        sources = [source for source, _ in self.batch.lengths for _ in range(samples)]
        return list(zip(sources, self.drawn.lengths, strict=True))


class Sampler:
    """Draws and scores; the weights the model holds when this is made are the anchor's."""

    def __init__(self, context: Context, reader: RewardReader) -> None:
        self._work, self._method = context.work, context.spec.method
        self._hooks, self._reader = context.hooks, reader
        self._live: Mapping[str, torch.nn.Parameter] = dict(
            trainable_parameters(context.work.model)
        )
        self._received = context.received() if self._method.anchor else {}
        most = context.spec.data.max_target_tokens
        self.policy = SummaryPolicy(context.work, self._method.temperature, most)
        sizes = Architecture.from_config(context.work.model.config.to_dict())
        self.effort = PpoFlops.of(sizes, context.work.cost, self.policy.encoder_is_fixed)
        self._baseline = BASELINES[self._method.baseline]()
        seed = derive(context.work.seed, "sample")
        self._generator = torch.Generator(context.work.device).manual_seed(seed)
        self.rewards: list[float] = []

    @property
    def mean_reward(self) -> float:
        """Of all samples drawn so far."""
        return sum(self.rewards) / len(self.rewards)

    @property
    def _prompts_at_once(self) -> int:
        """So many that their samples fit the memory; 0: any number."""
        most = self._work.train.micro_batch or self._work.micro_batch
        return max(1, most // self._method.samples) if most else 0

    def draw(self, rows: Sequence[int], recorder: Recorder) -> list[tuple[Rollout, Tensor]]:
        """Samples of these examples, a few prompts at a time, with advantages (rows, 1)."""
        parts = list(chunks(rows, self._prompts_at_once or len(rows)))
        found = [self._some(part, recorder) for part in parts]
        worth = [self._worth(part, one.drawn) for part, one in zip(parts, found, strict=True)]
        every = torch.cat(worth)
        self.rewards += every.flatten().tolist()
        advantages = self._baseline(every).float().to(self._work.device)
        recorder.clock.mark("loss")
        shares = advantages.split([len(part) for part in parts])
        return [(one, share.reshape(-1, 1)) for one, share in zip(found, shares, strict=True)]

    @torch.no_grad()
    def _some(self, rows: Sequence[int], recorder: Recorder) -> Rollout:
        policy, work = self.policy, self._work
        signs = Signs.of(work.model.config)
        batch = collate([work.examples[row] for row in rows], signs, work.device)
        recorder.clock.mark("load")
        hidden = policy.encode(batch)
        drawn = policy.draw(hidden, batch, self._method.samples, self._generator, self._hooks)
        before = policy.log_probs(hidden, batch, drawn)
        fixed = hidden if policy.encoder_is_fixed else None
        anchor = self._anchor(batch, fixed, drawn) if self._method.anchor else None
        made = Rollout(batch, fixed, drawn, before, anchor)
        recorder.count(0, self.effort.drawing(batch.lengths, made.lengths, anchor is not None))
        recorder.clock.mark("forward")
        return made

    def _anchor(self, batch: Batch, hidden: Tensor | None, drawn: SampledSummaries) -> Tensor:
        with standing_at(self._live, self._received):
            seen = self.policy.encode(batch) if hidden is None else hidden
            return self.policy.log_probs(seen, batch, drawn)

    def _worth(self, rows: Sequence[int], drawn: SampledSummaries) -> Tensor:
        """Rewards (prompts, samples) in fp64."""
        samples, found = self._method.samples, []
        for place, tokens in enumerate(drawn.tokens.tolist()):
            spoken = tokens[: drawn.lengths[place]]
            found.append(self._reader.worth(rows[place // samples], spoken))
        return torch.tensor(found, dtype=torch.float64).view(-1, samples)
