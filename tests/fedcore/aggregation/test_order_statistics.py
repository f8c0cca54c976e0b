"""Median and trimmed mean, coordinate by coordinate, and the networks that sort them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedcore.aggregation import order_statistics
from fedcore.aggregation.folds import MEDIAN, WEIGHTED_MEAN, Fold, trimmed_mean
from fedcore.aggregation.order_statistics import CACHED_ELEMENTS, network

RANKS = {"median": MEDIAN, "tenth": trimmed_mean(0.1), "third": trimmed_mean(0.34)}
NUMBERS = st.floats(-1e6, 1e6, width=32)
ROWS = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=n, max_size=n)
)


def folded(fold: Fold, rows: Tensor) -> Tensor:
    out = torch.full((rows.shape[1],), torch.nan)
    fold.run([1 / len(rows)] * len(rows), iter(rows), out)
    return out


@pytest.mark.parametrize("count", range(1, 9))
def test_network_sorts_all_zero_one_rows(count: int) -> None:
    """Then it sorts everything (the 0-1 principle, Knuth 5.3.4); also where only ranks are kept."""
    for first in range(count):
        for last in range(first, count):
            for bits in itertools.product((0, 1), repeat=count):
                line = list(bits)
                for low, high in network(count, first, last):
                    line[low], line[high] = sorted((line[low], line[high]))
                assert line[first : last + 1] == sorted(bits)[first : last + 1]


@pytest.mark.parametrize("name", RANKS)
class TestLaws:
    @settings(max_examples=60, deadline=None)
    @given(rows=ROWS)
    def test_result_lies_between_lowest_and_highest(
        self, name: str, rows: list[list[float]]
    ) -> None:
        table = torch.tensor(rows)
        result = folded(RANKS[name], table)
        slack = 1e-6 * table.abs().amax(0)  # where nothing is cut it is a mean, which rounds
        assert (result >= table.amin(0) - slack).all() and (result <= table.amax(0) + slack).all()

    @settings(max_examples=60, deadline=None)
    @given(rows=ROWS, data=st.data())
    def test_result_ignores_update_order(
        self, name: str, rows: list[list[float]], data: st.DataObject
    ) -> None:
        order = data.draw(st.permutations(range(len(rows))))
        table = torch.tensor(rows)
        one, two = folded(RANKS[name], table), folded(RANKS[name], table[list(order)])
        if name == "median" or len(rows) >= 10:
            assert torch.equal(one, two)
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-1)

    def test_fold_of_one_update_is_that_update(self, name: str) -> None:
        row = torch.randn(1, 1000)
        assert torch.equal(folded(RANKS[name], row), row[0])

    def test_pieces_do_not_change_bits(self, name: str) -> None:
        table = torch.randn(12, CACHED_ELEMENTS // 12 + 77)
        whole = folded(RANKS[name], table)
        assert torch.equal(whole[-100:], folded(RANKS[name], table[:, -100:]))


def test_network_and_sort_give_equal_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.randn(13, 3000).round(decimals=1)
    by_network = {name: folded(fold, table) for name, fold in RANKS.items()}
    monkeypatch.setattr(order_statistics, "NETWORK_ROWS", 0)
    for name, fold in RANKS.items():
        assert torch.equal(folded(fold, table), by_network[name])
        assert not torch.signbit(by_network[name][by_network[name] == 0]).any()


@pytest.mark.parametrize("count", [3, 4, 10, 11, 33])
def test_median_equals_numpy(count: int) -> None:
    table = torch.randn(count, 5000)
    torch.testing.assert_close(
        folded(MEDIAN, table), torch.quantile(table, 0.5, dim=0), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(("trim", "count", "cut"), [(0.1, 10, 1), (0.2, 10, 2), (0.29, 100, 29)])
def test_trimmed_mean_cuts_its_share(trim: float, count: int, cut: int) -> None:
    table = torch.randn(count, 100)
    expected = table.sort(0).values[cut : count - cut].mean(0)
    torch.testing.assert_close(folded(trimmed_mean(trim), table), expected, rtol=1e-5, atol=1e-6)


def test_trimmed_mean_without_cut_equals_mean() -> None:
    table = torch.randn(7, 1000)
    assert torch.equal(folded(trimmed_mean(0.0), table), folded(WEIGHTED_MEAN, table))
    assert torch.equal(folded(trimmed_mean(0.1), table), folded(WEIGHTED_MEAN, table))


@pytest.mark.parametrize(("fold", "bad"), [(MEDIAN, 4), (trimmed_mean(0.34), 3)])
def test_breakdown_point_bounds_broken_devices(fold: Fold, bad: int) -> None:
    table = torch.randn(9, 2000)
    good = table[bad:].clone()
    for lie in (1e30, -1e30):
        table[:bad] = lie
        result = folded(fold, table)
        assert (result >= good.amin(0)).all() and (result <= good.amax(0)).all()
    table[: bad + 1] = 1e30
    assert (folded(fold, table) > 1e20).all()


def test_sign_of_zero_ignores_order() -> None:
    zeros = torch.tensor([[0.0], [-0.0], [-0.0]])
    for places in itertools.permutations(range(3)):
        assert not torch.signbit(folded(MEDIAN, zeros[list(places)])).any()
