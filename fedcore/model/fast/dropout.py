"""Dropout with cheap random numbers, on the bits of the values.

torch draws a Bernoulli number for each value: 15 % of a training step on a CPU. Here SFC64 fills
words of 64 bits, each of which decides for four values, and a value is dropped by clearing its
bits. A probability is thus a multiple of 2^-16. The numbers depend on the seeds alone, not on
threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from fedcore.seeds import derive

STEPS = 1 << 16
BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


class DropoutStream:
    """One stream of random numbers. ``rate`` is the model's dropout."""

    def __init__(self, rate: float, seed: int = 0, *names: int | str) -> None:
        self.rate = rate
        self._seed = derive(seed, *names)
        self._generator: np.random.Generator | None = None

    def __bool__(self) -> bool:
        return self.rate > 0

    def part(self, name: str) -> DropoutStream:
        """A stream of its own: a layer that is computed twice drops the same values."""
        return DropoutStream(self.rate, self._seed, name)

    def kept(self, count: int, rate: float) -> Tensor:
        """int16 words (count): all ones where a value is kept, zero where it is dropped."""
        if self._generator is None:
            self._generator = np.random.Generator(np.random.SFC64(self._seed))
        words = self._generator.integers(
            0, (1 << 64) - 1, -(-count // 4), dtype=np.uint64, endpoint=True
        )
        drawn = torch.from_numpy(words.view(np.int16)[:count])
        limit = _limit(rate) - (STEPS >> 1)  # of numbers uniform in [-2^15, 2^15)
        return drawn.clamp_(limit - 1, limit).sub_(limit - 1).neg_()

    def drop(self, x: Tensor, rate: float | None = None) -> Tensor:
        """``x`` with values dropped and the rest scaled up, as in inverted dropout."""
        wanted = self.rate if rate is None else rate
        if not self or not _limit(wanted):
            return x
        kept = self.kept(x.numel(), wanted).view(x.shape)
        dropped: Tensor = _Drop.apply(x, kept, scale(wanted))  # type: ignore[no-untyped-call]
        return dropped


def _limit(rate: float) -> int:
    return round(rate * STEPS)


def scale(rate: float) -> float:
    """What kept values are multiplied with."""
    return STEPS / (STEPS - _limit(rate))


def mask(x: Tensor, kept: Tensor) -> Tensor:
    """``x`` where ``kept`` is all ones, else 0."""
    kind = BITS[x.dtype]
    bits = x.view(kind) & kept.to(kind)
    return bits.view(x.dtype)


class _Drop(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.factor = factor
        return mask(x.contiguous(), kept).mul_(factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return mask(grads[0].contiguous(), kept).mul_(ctx.factor), None, None
