"""What a round makes of one adapted matrix: the mean of products, and how each rule serves it.

Notation of the papers: device i ends with scale s_i, B_i (out, r_i), A_i (r_i, in) and has the
share p_i of the examples; W = sum p_i s_i B_i A_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedcore.aggregation.lowrank.products import FP32_ROUNDING, Product, compressed, spectrum, total


@dataclass(frozen=True)
class TrainedProduct:
    """One device's part: the product it started from, the one it ended with, its share, its factor.

    Shares sum to 1 over the devices that trained this matrix. ``factor`` is what the strategy
    multiplies the update with (clipping, FedNova, q-FedAvg); 1 nearly always.
    """

    share: float
    factor: float
    start: Product
    end: Product

    @property
    def product(self) -> Product:
        """Where the device ended; with a factor f, its start and f times the way from there.

        Our choice: the factor scales the change of the product, so that weighings weigh products.
        """
        if self.factor == 1:
            return self.end
        return total([self.start.times(1 - self.factor), self.end.times(self.factor)])


def mean_product(parts: Sequence[TrainedProduct]) -> Product:
    """W: the mean of the devices' products by their shares."""
    return total([part.product.times(part.share) for part in parts])


def moved(before: Product, mean: Product, rate: float) -> Product:
    """``before + rate (mean - before)``: the server's rate, on products."""
    return mean if rate == 1 else total([before.times(1 - rate), mean.times(rate)])


def noise_of(product: Product) -> float:
    """What fp32 factors of this size may leave where the product should be zero."""
    return FP32_ROUNDING * product.bound()


@dataclass(frozen=True)
class ServedAdapter:
    """One matrix as it is served, fp32: B (out, r), A (r, in), and what the base has taken in.

    ``merged`` is of rank 0 where the base is as it was.
    """

    b: Tensor
    a: Tensor
    merged: Product


def redistributed(
    merged: Product, target: Product, start: tuple[Tensor, Tensor], scale: float
) -> ServedAdapter:
    """FlexLoRA (Bai et al. 2024, arXiv 2402.11505): B = U_r S_r / s, A = V_r^T, largest first.

    So the first k rows and columns are the best of rank k. ``start`` is a fresh (B, A) of the rank
    that is served; our choice: ranks that W does not fill start anew from it, with B zero.
    """
    b, a = (factor.clone() for factor in start)
    rank = a.shape[0]
    best = spectrum(target, rank).cut(rank, noise_of(target)) if target.rank else target
    b[:, : best.rank] = (best.left / scale).float()
    a[: best.rank] = best.right.float()
    return ServedAdapter(b, a, merged)


def stacked(
    merged: Product, target: Product, start: tuple[Tensor, Tensor], scale: float
) -> ServedAdapter:
    """FLoRA (Wang et al. 2024, arXiv 2409.05976): all of W into the base, the adapter anew."""
    del scale
    b, a = start
    return ServedAdapter(b, a, merged_with(merged, target))


def with_residual(
    merged: Product, target: Product, b: Tensor, a: Tensor, scale: float
) -> ServedAdapter:
    """FedEx-LoRA (Singhal et al. 2024, arXiv 2410.09432): what B A misses of W, into the base."""
    missed = total([target, Product.of(b, a, -scale)])
    return ServedAdapter(b, a, merged_with(merged, compressed(missed, noise_of(missed))))


def merged_with(merged: Product, change: Product) -> Product:
    """What the base holds with one more change, as fp32 holds it.

    Factors stand side by side until they are more than the smaller side of the matrix; then they
    are brought to its rank at most, which is exact.
    """
    both = total([merged, change])
    if both.rank > min(both.shape):
        both = compressed(both)
    return Product(both.left.float().double(), both.right.float().double())


@dataclass(frozen=True)
class MatrixError:
    """How far one matrix is from where the rule was to bring it: |served - target|, |target|.

    ``bound``: of the target's factors, by which rounding is told from error.
    """

    off: float
    size: float
    bound: float

    @classmethod
    def of(
        cls, served: ServedAdapter, merged: Product, target: Product, scale: float
    ) -> MatrixError:
        """``merged``: what the base had taken in before."""
        change = [Product.of(served.b, served.a, scale), served.merged, merged.times(-1)]
        off = total([*change, target.times(-1)]).norm()
        return cls(off, target.norm(), target.bound())
