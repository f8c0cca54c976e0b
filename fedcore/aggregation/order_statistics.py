"""Order statistics: coordinate-wise median and trimmed mean (Yin et al. 2018, arXiv 1803.01498).

The rows of a small fleet are sorted by a network of comparators (Batcher 1968; Knuth 5.2.2,
algorithm M). Each comparator is one minimum and one maximum of whole rows, so a core's vector unit
sorts many coordinates at once. A network grows faster than a sort, so many rows are sorted
coordinate by coordinate. Memory holds one block of each update.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

Comparators = tuple[tuple[int, int], ...]
NETWORK_ROWS = 16  # measured: a network takes half of a sort's time at 10 rows, the same at 25
CACHED_ELEMENTS = 1 << 18  # of all rows together while they are sorted: 1 MiB, which a core caches


@lru_cache(maxsize=32)
def network(count: int, first: int, last: int) -> Comparators:
    """Comparators (i, j) that put the ranks ``first`` to ``last`` of ``count`` rows in place."""
    # Merge exchange for any count (Knuth, volume 3, 5.2.2, algorithm M).
    comparators = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    p = top
    while p:
        q, r, d = top, 0, p
        while True:
            comparators += [(i, i + d) for i in range(count - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    # Of these, backwards, the comparators that the ranks asked for depend on.
    lines = set(range(first, last + 1))
    needed = []
    for low, high in reversed(comparators):
        if low in lines or high in lines:
            lines |= {low, high}
            needed.append((low, high))
    return tuple(reversed(needed))


def mean_of_ranks(rows: Sequence[Tensor], cut: int, out: Tensor) -> None:
    """Fill ``out`` with each coordinate's mean without its ``cut`` lowest and highest values.

    Elementwise in a fixed order, so neither blocks nor threads can change a bit of it.
    """
    step = max(1, CACHED_ELEMENTS // (len(rows) + 1))
    ranked = _by_network if len(rows) <= NETWORK_ROWS else _by_sorting
    for start in range(0, out.numel(), step):
        stop = min(start + step, out.numel())
        lines = ranked([row[start:stop] for row in rows], cut)
        piece, share = out[start:stop], 1 / len(lines)
        torch.mul(lines[0], share, out=piece)
        for line in lines[1:]:
            piece.add_(line, alpha=share)
        # Clamped, as rounding may not pass the lowest and highest; adding 0 turns -0 into 0.
        torch.clamp(piece, lines[0], lines[-1], out=piece).add_(0.0)


def _by_network(rows: Sequence[Tensor], cut: int) -> Sequence[Tensor]:
    """Sorted lines without the ``cut`` lowest and highest."""
    lines = [row.clone() for row in rows]
    spare = torch.empty_like(lines[0])
    for low, high in network(len(rows), cut, len(rows) - 1 - cut):
        torch.minimum(lines[low], lines[high], out=spare)
        torch.maximum(lines[low], lines[high], out=lines[high])
        lines[low], spare = spare, lines[low]
    return lines[cut : len(lines) - cut]


def _by_sorting(rows: Sequence[Tensor], cut: int) -> Sequence[Tensor]:
    table = np.stack([row.numpy() for row in rows], axis=1)
    table.sort(axis=1)
    lines = np.ascontiguousarray(table.T[cut : len(rows) - cut])
    return list(torch.from_numpy(lines))
