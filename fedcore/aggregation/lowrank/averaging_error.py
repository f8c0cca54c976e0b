"""How wrong averaging low-rank factors is: mean(B) mean(A) is not mean(B A)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fedcore.compute.device import torch_threads

ROUNDING = 1e-14  # of sums of fp64 products: below this share of |B|^2 |A|^2 they count as zero
Deltas = Sequence[tuple[float, Callable[[str], Tensor]]]


def relative(off: float, size: float, bound: float) -> float | None:
    """sqrt(off / size) of squared norms; 0 where ``off`` is no more than rounding of ``bound``.

    None where only ``size`` is nothing.
    """
    nothing = ROUNDING * bound
    if off <= nothing:
        return 0.0
    return math.sqrt(off / size) if size > nothing else None


def aggregation_error(weights: Mapping[str, Tensor], deltas: Deltas) -> float | None:
    """|served - mean(s B A)| / |mean(s B A)|, Frobenius over all adapted matrices.

    ``deltas`` are (share, name -> delta) of each device, served is the product of the averaged
    factors. All devices share one scale s, which cancels. 0 where both are zero; None
    where only the mean of products is zero.
    """
    # The matrices are small: a second thread would cost a hundred times their time.
    with torch_threads(1):
        return _error(weights, deltas)


def _error(weights: Mapping[str, Tensor], deltas: Deltas) -> float | None:
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
    return relative(off, size, bound)


def _factors(
    weights: Mapping[str, Tensor], deltas: Deltas, names: tuple[str, str]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """(share, B, A) of each device in fp64."""
    a, b = (weights[name].double() for name in names)
    for share, delta in deltas:
        yield share, b + delta(names[1]).double(), a + delta(names[0]).double()


def _square(left: Tensor, right: Tensor) -> float:
    """|left @ right|^2 without forming the product, from the Gram matrices of both."""
    return float(((left.T @ left) * (right @ right.T)).sum())
