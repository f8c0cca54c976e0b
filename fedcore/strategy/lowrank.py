"""How wrong averaging low-rank factors is: mean(B) mean(A) is not mean(B A)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

ROUNDING = 1e-13  # of fp64 products: below this share of |B| |A| a sum counts as zero
Deltas = Sequence[tuple[float, Callable[[str], Tensor]]]


def aggregation_error(weights: Mapping[str, Tensor], deltas: Deltas) -> float | None:
    """|served - mean(s B A)| / |mean(s B A)|, Frobenius over all adapted matrices.

    ``deltas`` are (share, name -> delta) of each device, served is the product of the averaged
    factors. All devices share one scale s, which cancels. 0 where both are zero; None
    where only the mean of products is zero.
    """
    off = size = bound = 0.0
    for name_a in sorted(name for name in weights if ".lora_A." in name):
        name_b = name_a.replace(".lora_A.", ".lora_B.")
        factors = list(_factors(weights, deltas, (name_a, name_b)))
        mean_a = torch.stack([share * a for share, _, a in factors]).sum(0)
        mean_b = torch.stack([share * b for share, b, _ in factors]).sum(0)
        left = torch.cat([share * b for share, b, _ in factors], 1)
        right = torch.cat([a for _, _, a in factors], 0)
        size += _square(left, right)
        bound += sum(share * float(b.norm() * a.norm()) for share, b, a in factors) ** 2
        off += _square(torch.cat([mean_b, -left], 1), torch.cat([mean_a, right], 0))
    nothing = ROUNDING**2 * bound
    if size <= nothing:
        return 0.0 if off <= nothing else None
    return math.sqrt(off / size)


def _factors(
    weights: Mapping[str, Tensor], deltas: Deltas, names: tuple[str, str]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """(share, B, A) of each device in fp64."""
    a, b = (weights[name].double() for name in names)
    for share, delta in deltas:
        yield share, b + delta(names[1]).double(), a + delta(names[0]).double()


def _square(left: Tensor, right: Tensor) -> float:
    """|left @ right|^2 without forming the product: both are reduced by QR first."""
    core = torch.linalg.qr(left).R @ torch.linalg.qr(right.T).R.T
    return float(core.square().sum())
