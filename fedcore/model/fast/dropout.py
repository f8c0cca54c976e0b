"""Dropout by bit masks from a cheap random generator.

torch draws a Bernoulli number for each value: 15 % of a training step on a CPU. Here SFC64 fills
words of 64 bits, each of which decides on four values, and a value is dropped by clearing its bits.
A probability is thus a multiple of 2^-16. The masks depend on the seeds alone, not on threads.
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
    """One stream of dropout masks. ``rate`` is the model's dropout probability."""

    def __init__(self, rate: float, seed: int = 0, *names: int | str) -> None:
        self.rate = rate
        self._seed = derive(seed, *names)
        self._generator: np.random.Generator | None = None

    def __bool__(self) -> bool:
        return self.rate > 0

    def part(self, name: str) -> DropoutStream:
        """The stream of one layer: computed twice, the layer drops the same values."""
        return DropoutStream(self.rate, self._seed, name)

    def keep_mask(self, count: int, rate: float) -> Tensor:
        """int16 words (count): all ones where a value is kept, zero where it is dropped."""
        if self._generator is None:
            self._generator = np.random.Generator(np.random.SFC64(self._seed))
        words = self._generator.integers(
            0, (1 << 64) - 1, -(-count // 4), dtype=np.uint64, endpoint=True
        )
        numbers = torch.from_numpy(words.view(np.int16)[:count])
        limit = _limit(rate) - (STEPS >> 1)  # of numbers uniform in [-2^15, 2^15)
        return numbers.clamp_(limit - 1, limit).sub_(limit - 1).neg_()

    def drop(self, x: Tensor, rate: float | None = None) -> Tensor:
        """``x`` with values dropped and the rest scaled up, as in inverted dropout."""
        rate = self.rate if rate is None else rate
        if not self or not _limit(rate):
            return x
        keep = self.keep_mask(x.numel(), rate).view(x.shape)
        dropped: Tensor = _Drop.apply(x, keep, scale(rate))  # type: ignore[no-untyped-call]
        return dropped


def _limit(rate: float) -> int:
    return round(rate * STEPS)


def scale(rate: float) -> float:
    """What kept values are multiplied with."""
    return STEPS / (STEPS - _limit(rate))


def mask(x: Tensor, keep: Tensor) -> Tensor:
    """``x`` where ``keep`` is all ones, else 0."""
    kind = BITS[x.dtype]
    bits = x.view(kind) & keep.to(kind)
    return bits.view(x.dtype)


class _Drop(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.factor = factor
        return mask(x.contiguous(), keep).mul_(factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return mask(grads[0].contiguous(), keep).mul_(ctx.factor), None, None
