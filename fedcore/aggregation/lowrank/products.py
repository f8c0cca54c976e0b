"""Matrices as products of thin factors: sums by stacking, exact spectra without the matrix.

A weighted sum of n products of rank r is one product of rank n r. With both factors brought to QR
form its singular values are those of a small core (n r x n r), which costs little where n r is well
below the sides of the matrix (Halko, Martinsson, Tropp 2011, section 1.1, without any sampling).
All work is fp64 on one thread, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FP32_ROUNDING = 2.0**-24
SVD_FLOPS = 22  # of a thin SVD, times long side x short side squared (Golub, Van Loan, 8.6.3)


@dataclass(frozen=True)
class Product:
    """The matrix ``up @ down``: (out, R) times (R, in), fp64; R = 0 is the zero matrix."""

    up: Tensor
    down: Tensor

    @classmethod
    def of(cls, b: Tensor, a: Tensor, scale: float = 1.0) -> Product:
        """``scale B A`` of an adapter's B (out, r) and A (r, in); of rank 0 where B is zero."""
        if not b.any():
            return cls.zero(b.shape[0], a.shape[1])
        return cls(b.double() * scale, a.double())

    @classmethod
    def zero(cls, rows: int, columns: int) -> Product:
        kind = torch.float64
        return cls(torch.zeros(rows, 0, dtype=kind), torch.zeros(0, columns, dtype=kind))

    @property
    def rank(self) -> int:
        """Columns of ``up``: at least the matrix's own rank."""
        return self.up.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]

    def times(self, number: float) -> Product:
        return self if number == 1 else Product(self.up * number, self.down)

    def dense(self) -> Tensor:
        """The matrix itself, (out, in)."""
        return self.up @ self.down

    def norm(self) -> float:
        """Frobenius norm, from the core: cancellation costs no more than rounding."""
        if not self.rank:
            return 0.0
        if not factored_is_cheaper(*self.shape, self.rank):
            return float(self.dense().norm())
        one, two = _Reflected(self.up), _Reflected(self.down.T)
        return float((one.r @ two.r.T).norm())

    def bound(self) -> float:
        """|up| |down|: an upper bound of the norm, by which rounding is judged."""
        return float(self.up.norm() * self.down.norm())


def total(parts: Sequence[Product]) -> Product:
    """The sum of products of equal shape, as one product: factors side by side."""
    return Product(
        torch.cat([part.up for part in parts], 1), torch.cat([part.down for part in parts], 0)
    )


def factored_is_cheaper(rows: int, columns: int, rank: int) -> bool:
    """Whether two QRs and a small core take fewer operations than the dense matrix's SVD."""
    short = min(rows, columns)
    if rank >= short:
        return False
    factored = 4 * (rows + columns) * rank**2 + SVD_FLOPS * rank**3
    dense = 2 * rows * columns * rank + SVD_FLOPS * max(rows, columns) * short**2
    return factored < dense


@dataclass(frozen=True)
class Spectrum:
    """A thin SVD: u (out, k), falling values (k), v (k, in). Each u's largest entry is positive."""

    u: Tensor
    values: Tensor
    v: Tensor

    def cut(self, rank: int, noise: float = 0.0) -> Product:
        """The best approximation of at most that rank (Eckart and Young 1936), values in ``up``.

        Singular values up to ``noise`` count as zero.
        """
        terms = min(rank, int((self.values > noise).sum()))
        return Product(self.u[:, :terms] * self.values[:terms], self.v[:terms])


def spectrum(product: Product, rank: int | None = None) -> Spectrum:
    """The SVD of a product, or its first ``rank`` terms.

    By its factors, or of the dense matrix where that is cheaper.
    """
    if factored_is_cheaper(*product.shape, product.rank):
        one, two = _Reflected(product.up), _Reflected(product.down.T)
        u, values, v = torch.linalg.svd(one.r @ two.r.T, full_matrices=False)
        u, v = one.times(u[:, :rank]), two.times(v[:rank].T).T
    else:
        u, values, v = torch.linalg.svd(product.dense(), full_matrices=False)
    u, values, v = u[:, :rank], values[:rank], v[:rank]
    signs = torch.ones(u.shape[1], dtype=u.dtype)
    if u.numel():  # an SVD leaves signs open, and equal inputs must give equal factors
        largest = u.gather(0, u.abs().argmax(0, keepdim=True))[0]
        signs = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return Spectrum(u * signs, values, v * signs[:, None])


class _Reflected:
    """A thin factor (side, R) as Q R, Q kept as reflections: it is applied, never formed."""

    def __init__(self, factor: Tensor) -> None:
        self._reflections, self._tau = torch.geqrf(factor.contiguous())
        self.r = self._reflections[: factor.shape[1]].triu()

    def times(self, small: Tensor) -> Tensor:
        """``Q @ small``: (R, k) to (side, k)."""
        tall = small.new_zeros(len(self._reflections), small.shape[1])
        tall[: len(small)] = small
        return torch.ormqr(self._reflections, self._tau, tall)


def compressed(product: Product, noise: float = 0.0) -> Product:
    """The same matrix at its own rank: what is at most ``noise``, or fp32 cannot hold, is zero."""
    if not product.rank:
        return product
    svd = spectrum(product)
    top = float(svd.values[0]) if len(svd.values) else 0.0
    return svd.cut(product.rank, max(noise, FP32_ROUNDING * top))
