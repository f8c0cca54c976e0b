"""Needed FLOPs of PPO: each prompt is encoded once for all of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.flops import Cost
from fedcore.plan.cost.step_flops import full_cost

Lengths = Sequence[tuple[int, int]]  # (source, target) tokens of each

ENCODER_BACKWARD = 2  # a frozen encoder with adapters: forward and input gradients


@dataclass(frozen=True)
class PpoFlops:
    """FLOPs per sample; ``training`` is that of a whole step (``Workload.cost``).

    Products of adapters in passes without a gradient are small and not counted.
    """

    forward: Cost
    encoder: Cost
    training: Cost
    encoder_is_fixed: bool

    @classmethod
    def of(cls, sizes: Architecture, training: Cost, encoder_is_fixed: bool) -> PpoFlops:
        return cls(full_cost(sizes).forward, encoder_cost(sizes), training, encoder_is_fixed)

    def sampling(self, prompts: Lengths, samples: Lengths, anchored: bool) -> int:
        """Generation of samples, and their log-probabilities by the policy and the anchor."""
        encoded = 2 if anchored and not self.encoder_is_fixed else 1
        decoded = 3 if anchored else 2
        each = self.forward.of(samples) - self.encoder.of(samples)
        return encoded * self.encoder.of(prompts) + decoded * each

    def learning(self, prompts: Lengths, samples: Lengths) -> int:
        """One pass with gradients over the samples."""
        passes = 1 if self.encoder_is_fixed else ENCODER_BACKWARD
        decoder = self.training.of(samples) - passes * self.encoder.of(samples)
        return decoder + (0 if self.encoder_is_fixed else passes * self.encoder.of(prompts))


def encoder_cost(sizes: Architecture) -> Cost:
    """Forward FLOPs of the encoder."""
    attention = 4 * sizes.d_model * sizes.inner
    matrices = attention + len(sizes.feed_forward) * sizes.d_model * sizes.d_ff
    return Cost(s=2 * matrices, ss=4 * sizes.inner) * sizes.encoder_layers
