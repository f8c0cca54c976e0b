"""Random numbers for stochastic rounding: a counter-based generator, the same on every machine."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

PER_DRAW = 4  # 16-bit numbers in one 64-bit draw


class Rounding(Protocol):
    """Gives ``count`` numbers in [0, 1) to add before rounding down; each call goes on."""

    def take(self, count: int) -> Tensor: ...


class NearestRounding:
    """Rounding to the nearest: half a step, always."""

    def take(self, count: int) -> Tensor:
        return torch.full((count,), 0.5)


class StochasticRounding:
    """Multiples of 2**-16, uniform, from Philox 4x64 (Salmon et al. 2011) keyed with ``seed``."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=seed)

    def take(self, count: int) -> Tensor:
        """``count`` must be a multiple of 4, but for the last call."""
        draws = self._bits.random_raw(-(-count // PER_DRAW))
        halves = torch.from_numpy(draws.astype("<u8", copy=False).view(np.int16)[:count])
        return halves.float().add_(2.0**15).mul_(2.0**-16)
