"""The error of averaging low-rank factors: mean(B) mean(A) is not mean(B A)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fedcore.aggregation.block_pass import FoldInputs
from fedcore.aggregation.flat_file import FlatFile
from fedcore.aggregation.update_files import WeightedUpdate
from fedcore.compute.determinism import torch_threads
from fedcore.spec.job import JobSpec
from fedcore.wire.frame import FrameReader

ROUNDING = 1e-14  # of sums of fp64 products: below this share of |B|^2 |A|^2 they count as zero
Deltas = Sequence[tuple[float, Callable[[str], Tensor]]]


def relative_error(error: float, size: float, bound: float) -> float | None:
    """sqrt(error / size) of squared norms; 0 where ``error`` is no more than rounding of ``bound``.

    None where only ``size`` is nothing.
    """
    negligible = ROUNDING * bound
    if error <= negligible:
        return 0.0
    return math.sqrt(error / size) if size > negligible else None


def factor_error(spec: JobSpec, inputs: FoldInputs, model: Path) -> float | None:
    """The aggregation error of updates whose factors are averaged entry by entry.

    ``model`` is the global model before the fold. None where no low-rank factors train, and for
    folds that are no mean.
    """
    if not spec.adapter.family.trains_low_rank_factors or not inputs.strategy.fold.weighted:
        return None
    before = FrameReader(model)
    deltas = [
        (update.share, partial(_filtered_delta, inputs, update, before))
        for update in inputs.updates
    ]
    return aggregation_error(before, deltas)


def _filtered_delta(
    inputs: FoldInputs, update: WeightedUpdate[FlatFile], before: FrameReader, name: str
) -> Tensor:
    if name not in inputs.layout.names:
        return torch.zeros(before.shapes[name])  # a frozen factor
    numbers = update.data.read(*inputs.layout.span(name)) * update.factor
    return numbers.view(before.shapes[name])


def aggregation_error(weights: Mapping[str, Tensor], deltas: Deltas) -> float | None:
    """|served - mean(s B A)| / |mean(s B A)|, Frobenius over all adapted matrices.

    ``deltas`` are (share, name -> delta) of each device; served is the product of the averaged
    factors. All devices share one scale s, which cancels. 0 where both are zero; None where only
    the mean of products is zero.
    """
    error = size = bound = 0.0
    with torch_threads(1):  # on small matrices a second thread costs a hundred times their time
        for name_a in sorted(name for name in weights if ".lora_A." in name):
            name_b = name_a.replace(".lora_A.", ".lora_B.")
            a, b = weights[name_a].double(), weights[name_b].double()
            factors = [
                (share, b + delta(name_b).double(), a + delta(name_a).double())
                for share, delta in deltas
            ]
            mean_a = torch.stack([share * a for share, _, a in factors]).sum(0)
            mean_b = torch.stack([share * b for share, b, _ in factors]).sum(0)
            up = torch.cat([share * b for share, b, _ in factors], 1)
            down = torch.cat([a for _, _, a in factors], 0)
            size += _squared_norm(up, down)
            bound += sum(share * float(b.norm() * a.norm()) for share, b, a in factors) ** 2
            error += _squared_norm(torch.cat([mean_b, -up], 1), torch.cat([mean_a, down], 0))
    return relative_error(error, size, bound)


def _squared_norm(up: Tensor, down: Tensor) -> float:
    """|up @ down|^2 without forming the product, from the Gram matrices of both."""
    return float(((up.T @ up) * (down @ down.T)).sum())
