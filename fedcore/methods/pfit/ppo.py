"""The parts of PPO: clipped ratio, anchor, advantages. Tensors are (rows, longest) per token.

Schulman et al., "Proximal Policy Optimization Algorithms", arXiv 1707.06347, section 3; the
group-relative baseline is that of Shao et al., arXiv 2402.03300, section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Baseline = Callable[[Tensor], Tensor]
LEAST_SPREAD = 1e-4  # of rewards; below it they say nothing


def clipped_surrogate(now: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """What is to grow, per token: ``min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)``.

    ``now`` and ``before`` are log-probabilities under the live policy and the one that drew;
    ``advantage`` (rows, 1). Where both policies are the same its gradient is the policy gradient.
    """
    ratio = torch.exp(now - before)
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def kl_penalty(now: Tensor, anchor: Tensor) -> Tensor:
    """An estimate of KL(policy, anchor) per token in nats, never negative, 0 where they agree.

    ``exp(d) - 1 - d`` with ``d = anchor - now``, as in arXiv 2402.03300, equation 4.
    """
    difference = anchor - now
    return torch.expm1(difference) - difference


class Running:
    """Advantages over the mean reward of the device's earlier samples of this round.

    Our choice in place of a learnt value: no second network to train, keep or send. The first
    samples are compared with their own mean. Divided by the deviation of all samples so far.
    """

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def __call__(self, rewards: Tensor) -> Tensor:
        before = self._sum / self._count if self._count else float(rewards.mean())
        self._count += rewards.numel()
        self._sum += float(rewards.sum())
        self._squares += float(rewards.square().sum())
        variance = self._squares / self._count - (self._sum / self._count) ** 2
        return (rewards - before) / (math.sqrt(max(0.0, variance)) + LEAST_SPREAD)


def _within_group() -> Baseline:
    """Advantages over the mean of a prompt's own samples, in their own deviations."""

    def advantages(rewards: Tensor) -> Tensor:
        spread = rewards.std(1, keepdim=True, correction=0)
        return (rewards - rewards.mean(1, keepdim=True)) / (spread + LEAST_SPREAD)

    return advantages


# By name (``method.baseline``): rewards (prompts, samples) in, advantages of that shape out.
BASELINES: Mapping[str, Callable[[], Baseline]] = {"value": Running, "group": _within_group}
