"""Top-k sparsification: the numbers of largest magnitude, and their places.

The places are a bitmap, or one byte for each gap between two of them (255: add the next byte),
whichever is smaller.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.codec_chain import BITMAP, GAP_LIMIT, GAPS, Chain, bitmap_bytes
from fedcore.wire.codecs import Codec, Parts, Rounding

MAGNITUDE = 0x7FFFFFFF
BUCKETS = 1 << 15
PIECE = 1 << 18


def top_k(chain: Chain, values: Codec) -> Codec:
    """The chain's fraction of each row, written by ``values``; the rest decodes to zero.

    The error of a number left out is its magnitude, at most that of the smallest one sent.
    """

    def encode(row: Tensor, rounding: Rounding) -> dict[str, Tensor]:
        places = largest(row, chain.top_k_count(row.numel()))
        return {**values.encode(row[places], rounding), **encode_places(places, row.numel())}

    def decode(parts: Parts, n: int) -> Tensor:
        places = decode_places(parts, n, chain.top_k_count(n))
        row = torch.zeros(n)
        row[places] = values.decode(parts, places.numel())
        return row

    def bound(row: Tensor) -> Tensor:
        places = largest(row, chain.top_k_count(row.numel()))
        allowed = row.abs()
        allowed[places] = values.bound(row[places])
        return allowed

    return Codec(encode, decode, bound)


def largest(row: Tensor, k: int) -> Tensor:
    """Places (ascending) of the ``k`` numbers of largest magnitude; ties: the first ones."""
    if not k:
        return torch.empty(0, dtype=torch.int64)
    magnitude = row.view(torch.int32) & MAGNITUDE  # orders as the magnitudes do
    # By a histogram of the upper 15 bits, then exactly within the bucket that holds it.
    counts = np.zeros(BUCKETS, np.int64)
    for start in range(0, magnitude.numel(), PIECE):
        upper = (magnitude[start : start + PIECE] >> 16).numpy()
        counts += np.bincount(upper, minlength=BUCKETS)
    above = np.cumsum(counts[::-1])[::-1]  # how many stand in this bucket or a higher one
    bucket = int(np.nonzero(above >= k)[0][-1])
    inside = magnitude[(magnitude >> 16) == bucket]
    rank = k - int(above[bucket] - counts[bucket])
    threshold = int(inside.kthvalue(inside.numel() - rank + 1).values)
    places = (magnitude >= threshold).nonzero().view(-1)
    surplus = places.numel() - k
    if not surplus:
        return places
    mask = torch.ones(places.numel(), dtype=torch.bool)
    mask[(magnitude[places] == threshold).nonzero().view(-1)[-surplus:]] = False
    return places[mask]


def encode_places(places: Tensor, n: int) -> dict[str, Tensor]:
    """Ascending places in a row of ``n`` as gaps or as a bitmap."""
    before = torch.cat((torch.tensor([-1]), places[:-1]))
    skipped = places - before - 1
    ends = (skipped // GAP_LIMIT + 1).cumsum(0) - 1
    gap_count = int(ends[-1]) + 1 if places.numel() else 0
    if gap_count < bitmap_bytes(n):
        gaps = torch.full((gap_count,), GAP_LIMIT, dtype=torch.uint8)
        gaps[ends] = (skipped % GAP_LIMIT).to(torch.uint8)
        return {GAPS: gaps}
    mask = np.zeros(n, np.bool_)
    mask[places.numpy()] = True
    return {BITMAP: torch.from_numpy(np.packbits(mask, bitorder="little"))}


def decode_places(parts: Parts, n: int, k: int) -> Tensor:
    """Raises WireError where the indices are not ``k`` places of a row of ``n``."""
    if BITMAP in parts:
        bits = np.unpackbits(parts[BITMAP].numpy(), bitorder="little")
        places = torch.from_numpy(np.nonzero(bits)[0])
    else:
        gaps = parts[GAPS]
        ends = (gaps < GAP_LIMIT).nonzero().view(-1)
        places = gaps.long().cumsum(0)[ends] + torch.arange(ends.numel())
    if places.numel() != k or (k and int(places[-1]) >= n):
        raise WireError(f"the indices name {places.numel()} places of {n}, where {k} are due")
    return places
