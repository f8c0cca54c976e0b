"""Folds: many updates to one, by mean, trimmed mean or median.

A fold works on one block of numbers at a time, in fp32 and coordinate by coordinate, so that a
server never holds a whole update and any cut into blocks gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcore.aggregation.order_statistics import mean_of_ranks

FP32_UPDATES = 64  # more than these are summed in fp64
ROUNDING = 1e-9  # of a share times a count: 0.29 of 100 are 29


@dataclass(frozen=True)
class Fold:
    """Many updates to one: ``run(shares, blocks, out)`` fills ``out``.

    ``blocks`` gives one fp32 row of each update, in a fixed order; their shares of the weight sum
    to 1. A fold works coordinate by coordinate. One that is not ``weighted`` ignores shares, but an
    update of weight zero is left out of it as well.
    """

    name: str
    run: Callable[[Sequence[float], Iterable[Tensor], Tensor], None]
    weighted: bool = True


def _weighted_mean(shares: Sequence[float], blocks: Iterable[Tensor], out: Tensor) -> None:
    """Each sum is fused (FMA) and in order: off by at most n 2^-24 of the sum of |share x|."""
    for number, (share, block) in enumerate(zip(shares, blocks, strict=True)):
        if number:
            out.add_(block, alpha=share)
        else:
            torch.mul(block, share, out=out)


def _mean(shares: Sequence[float], blocks: Iterable[Tensor], out: Tensor) -> None:
    """In fp32 for up to FP32_UPDATES updates, in fp64 beyond."""
    if len(shares) <= FP32_UPDATES:
        _weighted_mean(shares, blocks, out)
        return
    wide = torch.empty(len(out), dtype=torch.float64)
    _weighted_mean(shares, (block.double() for block in blocks), wide)
    out.copy_(wide)


WEIGHTED_MEAN = Fold("weighted_mean", _mean)


def trimmed_mean(trim: float) -> Fold:
    """The mean without the ``trim`` share of lowest and of highest values, by coordinate.

    Of n updates floor(trim n) are cut at either end; where that is none it is the plain mean.
    """

    def run(shares: Sequence[float], blocks: Iterable[Tensor], out: Tensor) -> None:
        cut = math.floor(trim * len(shares) + ROUNDING)
        if cut:
            mean_of_ranks(list(blocks), cut, out)
        else:
            _mean([1 / len(shares)] * len(shares), blocks, out)

    return Fold("trimmed_mean", run, weighted=False)


def _median(shares: Sequence[float], blocks: Iterable[Tensor], out: Tensor) -> None:
    """The middle value of each coordinate; the mean of both middle ones of an even number."""
    mean_of_ranks(list(blocks), (len(shares) - 1) // 2, out)


MEDIAN = Fold("median", _median, weighted=False)
