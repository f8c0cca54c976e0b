"""The algebra of low-rank products, and the laws of its rules on one matrix."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedcore.aggregation.lowrank.products import (
    Product,
    compressed,
    factored_is_cheaper,
    spectrum,
    total,
)
from fedcore.aggregation.lowrank.rules import (
    MatrixError,
    TrainedProduct,
    mean_product,
    merged_with,
    moved,
    redistributed,
    stacked,
    with_residual,
)

OUT, IN = 24, 20
SIDES = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 16))


def product(seed: int, rank: int, rows: int = OUT, columns: int = IN) -> Product:
    draw = torch.Generator().manual_seed(seed)
    b, a = torch.randn(rows, rank, generator=draw), torch.randn(rank, columns, generator=draw)
    return Product.of(b, a, 0.5 + seed % 3)


def close(one: Tensor, two: Tensor, to: float = 1e-6) -> bool:
    return float((one - two).norm()) <= to * max(1.0, float(two.norm()))


def start(rank: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(99)
    return torch.zeros(OUT, rank), torch.randn(rank, IN, generator=draw)


def parts_of(*ranks: int) -> list[TrainedProduct]:
    """Devices of those ranks, the share of each as its place."""
    whole = sum(range(1, len(ranks) + 1))
    zero = Product.zero(OUT, IN)
    return [
        TrainedProduct(place / whole, 1.0, zero, product(place, rank))
        for place, rank in enumerate(ranks, start=1)
    ]


class TestProducts:
    @settings(max_examples=60, deadline=None)
    @given(sides=SIDES, other=st.integers(0, 5), seed=st.integers(0, 999))
    def test_product_sum_equals_matrix_sum(
        self, sides: tuple[int, int, int], other: int, seed: int
    ) -> None:
        rows, columns, rank = sides
        one, two = product(seed, rank, rows, columns), product(seed + 1, other, rows, columns)
        both = total([one.times(2), two.times(-0.5)])
        expected = 2 * one.dense() - 0.5 * two.dense()
        assert close(both.dense(), expected, 1e-12)
        assert both.norm() == pytest.approx(float(expected.norm()), rel=1e-9, abs=1e-9)

    @settings(max_examples=60, deadline=None)
    @given(sides=SIDES, seed=st.integers(0, 999))
    def test_spectrum_equals_dense_svd(self, sides: tuple[int, int, int], seed: int) -> None:
        rows, columns, rank = sides
        whole = product(seed, rank, rows, columns)
        factors, dense = spectrum(whole), torch.linalg.svdvals(whole.dense())
        assert torch.allclose(factors.values, dense[: len(factors.values)], atol=1e-9)
        assert float(dense[len(factors.values) :].sum()) < 1e-9
        assert close(factors.cut(rank).dense(), whole.dense(), 1e-9)
        for side in (factors.u, factors.v.T):
            assert close(side.T @ side, torch.eye(side.shape[1], dtype=side.dtype), 1e-9)

    @settings(max_examples=40, deadline=None)
    @given(rank=st.integers(1, 12), cut=st.integers(1, 12), seed=st.integers(0, 999))
    def test_cut_error_equals_singular_value_tail(self, rank: int, cut: int, seed: int) -> None:
        whole = product(seed, rank)
        values = torch.linalg.svdvals(whole.dense())
        off = float((spectrum(whole).cut(cut).dense() - whole.dense()).norm())
        assert off == pytest.approx(float(values[cut:].norm()), rel=1e-6, abs=1e-9)

    def test_core_and_dense_spectrum_agree(self) -> None:
        assert factored_is_cheaper(768, 768, 80) and not factored_is_cheaper(768, 768, 760)
        thin = product(1, 4, 200, 150)
        padded = total([thin, *[product(3, 60, 200, 150).times(0.0) for _ in range(3)]])
        assert factored_is_cheaper(200, 150, 4) and not factored_is_cheaper(200, 150, padded.rank)
        one, two = spectrum(thin), spectrum(padded)
        assert torch.allclose(one.values, two.values[:4], atol=1e-9)
        assert close(one.u, two.u[:, :4], 1e-6), "signs are fixed"
        assert close(one.v, two.v[:4], 1e-6)

    def test_compressed_keeps_matrix_at_its_rank(self) -> None:
        thin = product(1, 3)
        wide = total([thin, thin.times(0.25), product(2, 2)])
        assert wide.rank == 8 and compressed(wide).rank == 5
        assert close(compressed(wide).dense(), wide.dense(), 1e-9)
        nothing = total([thin, thin.times(-1)])
        assert compressed(nothing, 1e-9).rank == 0
        assert close(compressed(nothing, 1e-9).dense(), torch.zeros(OUT, IN))


class TestRules:
    def test_mean_product_equals_dense_mean(self) -> None:
        parts = parts_of(2, 5, 3)
        expected = sum(part.share * part.end.dense() for part in parts)
        assert close(mean_product(parts).dense(), expected, 1e-12)

    def test_factor_scales_the_product_change(self) -> None:
        before, after = product(1, 3), product(2, 3)
        part = TrainedProduct(1.0, 0.3, before, after)
        expected = before.dense() + 0.3 * (after.dense() - before.dense())
        assert close(mean_product([part]).dense(), expected, 1e-12)

    def test_server_rate_scales_the_step(self) -> None:
        one, two = product(1, 3), product(2, 4)
        assert moved(one, two, 1.0) is two
        assert close(moved(one, two, 0.25).dense(), 0.75 * one.dense() + 0.25 * two.dense(), 1e-12)

    @pytest.mark.parametrize("ranks", [(3, 3), (1, 4, 2), (2, 6)])
    def test_flexlora_of_full_rank_serves_the_mean(self, ranks: tuple[int, ...]) -> None:
        target = mean_product(parts_of(*ranks))
        for rank in (sum(ranks), sum(ranks) + 3):
            served = redistributed(Product.zero(OUT, IN), target, start(rank), 0.7)
            assert close(0.7 * served.b @ served.a, target.dense().float(), 1e-5)
            assert served.merged.rank == 0

    @pytest.mark.parametrize("rank", [1, 2, 5])
    def test_flexlora_error_equals_singular_value_tail(self, rank: int) -> None:
        target = mean_product(parts_of(4, 4, 4))
        values = torch.linalg.svdvals(target.dense())
        served = redistributed(Product.zero(OUT, IN), target, start(6), 2.0)
        cut = 2.0 * served.b[:, :rank].double() @ served.a[:rank].double()
        off = float((cut - target.dense()).norm())
        assert off == pytest.approx(float(values[rank:].norm()), rel=1e-5)
        miss = MatrixError.of(served, Product.zero(OUT, IN), target, 2.0)
        assert miss.off == pytest.approx(float(values[6:].norm()), rel=1e-5)
        assert miss.size == pytest.approx(float(values.norm()), rel=1e-9)

    def test_flexlora_fills_spare_ranks_with_fresh_factors(self) -> None:
        fresh_b, fresh_a = start(5)
        served = redistributed(Product.zero(OUT, IN), product(1, 2), (fresh_b, fresh_a), 1.0)
        assert torch.equal(served.a[2:], fresh_a[2:]) and not served.b[:, 2:].any()
        nothing = redistributed(Product.zero(OUT, IN), Product.zero(OUT, IN), start(5), 1.0)
        assert torch.equal(nothing.a, fresh_a) and not nothing.b.any()
        assert not fresh_b.any(), "the start is not written to"

    def test_stack_merges_the_mean_into_the_base(self) -> None:
        target = mean_product(parts_of(2, 5, 3))
        merged = product(7, 2)
        served = stacked(merged, target, start(4), 1.3)
        assert close(served.merged.dense(), merged.dense() + target.dense(), 1e-6)
        assert not served.b.any()

    def test_fedex_serves_the_mean_for_any_factors(self) -> None:
        target = mean_product(parts_of(3, 3))
        b, a = torch.randn(OUT, 3), torch.randn(3, IN)
        merged = product(7, 2)
        served = with_residual(merged, target, b, a, 1.5)
        whole = 1.5 * (b.double() @ a.double()) + served.merged.dense()
        assert close(whole, merged.dense() + target.dense(), 1e-6)

    def test_fedex_of_equal_adapters_merges_nothing(self) -> None:
        b, a = torch.randn(OUT, 3), torch.randn(3, IN)
        alike = [
            TrainedProduct(0.3, 1.0, Product.of(b, a), Product.of(b, a, 1.5)) for _ in range(3)
        ]
        shared = mean_product(
            [*alike, TrainedProduct(0.1, 1.0, Product.of(b, a), Product.of(b, a, 1.5))]
        )
        assert with_residual(Product.zero(OUT, IN), shared, b, a, 1.5).merged.rank == 0

    def test_merged_rank_never_exceeds_smaller_side(self) -> None:
        merged, expected = Product.zero(OUT, IN), torch.zeros(OUT, IN, dtype=torch.float64)
        for number in range(12):
            change = product(number, 6).times(0.1)
            merged, expected = merged_with(merged, change), expected + change.dense()
            assert merged.rank <= min(OUT, IN)
        assert close(merged.dense(), expected, 1e-6)
        assert torch.equal(merged.up, merged.up.float().double()), "as fp32 holds it"

    def test_equal_products_give_equal_factors(self) -> None:
        target = mean_product(parts_of(4, 2, 4))
        one, two = (redistributed(target, target, start(5), 1.0) for _ in range(2))
        assert torch.equal(one.b, two.b) and torch.equal(one.a, two.a)
        assert math.isfinite(float(one.b.sum()))
