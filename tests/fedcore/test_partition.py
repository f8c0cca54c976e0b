"""One table of laws for all partitions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import DataError
from fedcore.partition import partition

HOW = ("iid", "dirichlet:0.3", "dirichlet:100", "column:domain")
LABELS = st.lists(st.sampled_from("abcde"), min_size=30, max_size=80)


@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("how", HOW)
@given(labels=LABELS, devices=st.integers(1, 4), seed=st.integers(0, 99))
def test_nothing_is_lost_or_dealt_twice_and_the_seed_decides(
    how: str, labels: list[str], devices: int, seed: int
) -> None:
    devices = min(devices, len(set(labels)))
    parts = partition(how, len(labels), devices, seed, labels)
    assert sorted(row for part in parts for row in part) == list(range(len(labels)))
    assert len(parts) == devices and all(parts)
    assert parts == partition(how, len(labels), devices, seed, labels)


def test_a_column_keeps_each_value_on_one_device() -> None:
    labels = ["a", "b", "c", "a", "b", "a"]
    assert partition("column:x", 6, 3, 0, labels) == [[0, 3, 5], [1, 4], [2]]
    assert partition("column:x", 6, 2, 0, labels) == [[0, 3, 5], [1, 2, 4]]


def test_small_alpha_is_more_uneven_than_large() -> None:
    def spread(how: str) -> int:
        sizes = [len(part) for part in partition(how, 3000, 5, 1)]
        return max(sizes) - min(sizes)

    assert spread("dirichlet:0.2") > 4 * spread("dirichlet:1000")
    assert spread("iid") == 0


@pytest.mark.parametrize(
    ("how", "rows", "devices", "labels", "reason"),
    [
        ("sorted", 9, 3, (), "unknown partition"),
        ("iid:3", 9, 3, (), "unknown partition"),
        ("dirichlet", 9, 3, (), "unknown partition"),
        ("dirichlet:0", 9, 3, (), "above 0"),
        ("dirichlet:many", 9, 3, (), "above 0"),
        ("dirichlet:0.0001", 50, 40, (), "raise alpha"),
        ("iid", 2, 3, (), "cannot be dealt out to 3"),
        ("column:x", 3, 3, ("a", "a", "b"), "has 2 values"),
        ("column:x", 3, 1, ("a",), "1 labels do not fit 3 rows"),
    ],
)
def test_impossible_partitions_say_what_to_change(
    how: str, rows: int, devices: int, labels: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        partition(how, rows, devices, 0, labels)
