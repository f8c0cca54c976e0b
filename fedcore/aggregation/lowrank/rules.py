"""Low-rank rules on one adapted matrix: the mean of products, and what each rule serves for it.

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
    """One device's product before and after training, with its share and factor.

    Shares sum to 1 over the devices that trained this matrix. ``factor`` is the strategy's factor
    on the update (clipping, FedNova, q-FedAvg); it is 1 for most strategies.
    """

    share: float
    factor: float
    start: Product
    end: Product

    @property
    def product(self) -> Product:
        """The product after training; with a factor f, the start plus f times the change.

        Our choice: the factor scales the change of the product, not of A and B.
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
    """The fp32 rounding error of a product of this size."""
    return FP32_ROUNDING * product.bound()


@dataclass(frozen=True)
class ServedAdapter:
    """One matrix as it is served, fp32: B (out, r), A (r, in), and the merged base update.

    ``merged`` is of rank 0 where the base is unchanged.
    """

    b: Tensor
    a: Tensor
    merged: Product


def redistributed(
    merged: Product, target: Product, start: tuple[Tensor, Tensor], scale: float
) -> ServedAdapter:
    """FlexLoRA (Bai et al. 2024, arXiv 2402.11505): B = U_r S_r / s, A = V_r^T, largest first.

    So the first k rows and columns are the best of rank k. ``start`` is a fresh (B, A) of the
    served rank. Our choice: ranks that W does not fill are taken from it, with B zero.
    """
    b, a = (factor.clone() for factor in start)
    rank = a.shape[0]
    best = spectrum(target, rank).cut(rank, noise_of(target)) if target.rank else target
    b[:, : best.rank] = (best.up / scale).float()
    a[: best.rank] = best.down.float()
    return ServedAdapter(b, a, merged)


def stacked(
    merged: Product, target: Product, start: tuple[Tensor, Tensor], scale: float
) -> ServedAdapter:
    """FLoRA (Wang et al. 2024, arXiv 2409.05976): merge all of W, and serve a fresh adapter."""
    del scale
    b, a = start
    return ServedAdapter(b, a, merged_with(merged, target))


def with_residual(
    merged: Product, target: Product, b: Tensor, a: Tensor, scale: float
) -> ServedAdapter:
    """FedEx-LoRA (Singhal et al. 2024, arXiv 2410.09432): merge what B A misses of W."""
    missed = total([target, Product.of(b, a, -scale)])
    return ServedAdapter(b, a, merged_with(merged, compressed(missed, noise_of(missed))))


def merged_with(merged: Product, change: Product) -> Product:
    """The merged base update with one more change, rounded to fp32.

    Factors are stacked until their rank exceeds the smaller side of the matrix; then they are
    compressed to the matrix's own rank, which is exact.
    """
    both = total([merged, change])
    if both.rank > min(both.shape):
        both = compressed(both)
    return Product(both.up.float().double(), both.down.float().double())


@dataclass(frozen=True)
class MatrixError:
    """The serving error of one matrix: |served - target| and |target|.

    ``bound`` is that of the target's factors; it separates rounding from error.
    """

    off: float
    size: float
    bound: float

    @classmethod
    def of(
        cls, served: ServedAdapter, merged: Product, target: Product, scale: float
    ) -> MatrixError:
        """``merged``: the base update before this round."""
        change = [Product.of(served.b, served.a, scale), served.merged, merged.times(-1)]
        off = total([*change, target.times(-1)]).norm()
        return cls(off, target.norm(), target.bound())
