"""Top-k: only the numbers largest in magnitude travel, and where they stood.

Where they stood is a bitmap, or a byte for each gap between two of them (255: go on adding),
whichever is smaller.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.codec_chain import BITMAP, GAP_LIMIT, GAPS, Chain, bitmap_bytes
from fedcore.wire.codecs import Codec, Parts
from fedcore.wire.rounding import Rounding

MAGNITUDE = 0x7FFFFFFF
BUCKETS = 1 << 15
PIECE = 1 << 18


def top_k(chain: Chain, values: Codec) -> Codec:
    """The chain's fraction of each row, written by ``values``; the rest decodes to zero.

    The error of a number left out is its magnitude, at most the smallest one kept.
    """

    def encode(row: Tensor, noise: Rounding) -> dict[str, Tensor]:
        places = largest(row, chain.kept(row.numel()))
        return {**values.encode(row[places], noise), **_written(places, row.numel())}

    def decode(parts: Parts, n: int) -> Tensor:
        places = _read(parts, n, chain.kept(n))
        row = torch.zeros(n)
        row[places] = values.decode(parts, places.numel())
        return row

    def bound(row: Tensor) -> Tensor:
        places = largest(row, chain.kept(row.numel()))
        allowed = row.abs()
        allowed[places] = values.bound(row[places])
        return allowed

    return Codec(encode, decode, bound)


def largest(row: Tensor, kept: int) -> Tensor:
    """Places (ascending) of the ``kept`` numbers of largest magnitude; ties: the first ones."""
    if not kept:
        return torch.empty(0, dtype=torch.int64)
    magnitude = row.view(torch.int32) & MAGNITUDE  # orders as the magnitudes do
    edge = _kth_largest(magnitude, kept)
    places = (magnitude >= edge).nonzero().view(-1)
    surplus = places.numel() - kept
    if not surplus:
        return places
    wanted = torch.ones(places.numel(), dtype=torch.bool)
    wanted[(magnitude[places] == edge).nonzero().view(-1)[-surplus:]] = False
    return places[wanted]


def _kth_largest(magnitude: Tensor, k: int) -> int:
    """By a histogram of the upper 15 bits, then exactly within the bucket that holds it."""
    counts = np.zeros(BUCKETS, np.int64)
    for start in range(0, magnitude.numel(), PIECE):
        upper = (magnitude[start : start + PIECE] >> 16).numpy()
        counts += np.bincount(upper, minlength=BUCKETS)
    above = np.cumsum(counts[::-1])[::-1]  # how many stand in this bucket or a higher one
    bucket = int(np.nonzero(above >= k)[0][-1])
    inside = magnitude[(magnitude >> 16) == bucket]
    rank = k - int(above[bucket] - counts[bucket])
    return int(inside.kthvalue(inside.numel() - rank + 1).values)


def _written(places: Tensor, n: int) -> dict[str, Tensor]:
    gaps = _gaps(places)
    if gaps.numel() < bitmap_bytes(n):
        return {GAPS: gaps}
    mask = np.zeros(n, np.bool_)
    mask[places.numpy()] = True
    return {BITMAP: torch.from_numpy(np.packbits(mask, bitorder="little"))}


def _gaps(places: Tensor) -> Tensor:
    before = torch.cat((torch.tensor([-1]), places[:-1]))
    skipped = places - before - 1
    ends = (skipped // GAP_LIMIT + 1).cumsum(0) - 1
    out = torch.full((int(ends[-1]) + 1 if places.numel() else 0,), GAP_LIMIT, dtype=torch.uint8)
    out[ends] = (skipped % GAP_LIMIT).to(torch.uint8)
    return out


def _read(parts: Parts, n: int, kept: int) -> Tensor:
    """Raises WireError where the indices are not ``kept`` places of a row of ``n``."""
    if BITMAP in parts:
        bits = np.unpackbits(parts[BITMAP].numpy(), bitorder="little")
        places = torch.from_numpy(np.nonzero(bits)[0])
    else:
        gaps = parts[GAPS]
        ends = (gaps < GAP_LIMIT).nonzero().view(-1)
        places = gaps.long().cumsum(0)[ends] + torch.arange(ends.numel())
    if places.numel() != kept or (kept and int(places[-1]) >= n):
        raise WireError(f"the indices name {places.numel()} places of {n}, where {kept} are due")
    return places
