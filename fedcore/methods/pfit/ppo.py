"""The parts of PPO: clipped surrogate, KL penalty, advantages.

Tensors are (rows, longest) per token.

Schulman et al., "Proximal Policy Optimization Algorithms", arXiv 1707.06347, section 3; the
group-relative baseline is that of Shao et al., arXiv 2402.03300, section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Baseline = Callable[[Tensor], Tensor]
LEAST_SPREAD = 1e-4  # of rewards, added to their deviation


def clipped_surrogate(now: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """The objective to maximise, per token: ``min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)``.

    ``now`` and ``before``: log-probabilities under the live and the sampling policy. ``advantage``:
    (rows, 1). At equal policies its gradient is the policy gradient.
    """
    ratio = torch.exp(now - before)
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def kl_penalty(now: Tensor, anchor: Tensor) -> Tensor:
    """An estimate of KL(policy, anchor) per token in nats: non-negative, 0 at equal policies.

    ``exp(d) - 1 - d`` with ``d = anchor - now``, as in arXiv 2402.03300, equation 4.
    """
    difference = anchor - now
    return torch.expm1(difference) - difference


class RunningMean:
    """Advantages over the mean reward of the device's earlier samples of this round.

    Our choice instead of a learnt value, which would be a second network to train and send. The
    first samples are compared with their own mean. Divided by the deviation of all samples so far.
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


class GroupMean:
    """Advantages over the mean of a prompt's own samples, divided by their deviation."""

    def __call__(self, rewards: Tensor) -> Tensor:
        spread = rewards.std(1, keepdim=True, correction=0)
        return (rewards - rewards.mean(1, keepdim=True)) / (spread + LEAST_SPREAD)


# By name (``method.baseline``): rewards (prompts, samples) in, advantages of that shape out.
BASELINES: Mapping[str, Callable[[], Baseline]] = {"value": RunningMean, "group": GroupMean}
