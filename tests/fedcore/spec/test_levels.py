"""Trees of models: every leaf as deep, every child has its parent in the next level."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fedcore.errors import SpecError
from fedcore.spec.levels import Levels, grown, level_names, planted


@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 7))
def test_a_grown_tree_is_a_tree(count: int, above: int, most: int) -> None:
    leaves = [f"d{number}" for number in range(count)]
    tree = grown(leaves, above, most)
    assert tree.rows[0] == tuple(leaves) and len(tree.rows) == above + 1
    assert len(tree.rows[-1]) == 1
    for below, row in zip(tree.rows, tree.rows[1:], strict=False):
        assert {tree.parents[child] for child in below} == set(row)  # nobody without children
    for row in tree.rows[1:-1]:
        sizes = [len(tree.children(name)) for name in row]
        assert not most or max(sizes) <= most
        assert max(sizes) - min(sizes) <= 1
    assert planted(leaves, above, tree.parents) == tree


def test_names_of_levels() -> None:
    assert level_names(2) == ("end", "cloud")
    assert level_names(3) == ("end", "edge", "cloud")
    assert level_names(5) == ("end", "edge 1", "edge 2", "edge 3", "cloud")
    assert grown(["a", "b", "c"], 2, 2) == Levels(
        (("a", "b", "c"), ("edge-0", "edge-1"), ("cloud",)),
        {"a": "edge-0", "b": "edge-0", "c": "edge-1", "edge-0": "cloud", "edge-1": "cloud"},
    )


WRONG = [
    (2, {"a": "x", "x": "r"}, ["b has no parent"]),
    (1, {"a": "r", "b": "r", "zoe": "r"}, ["zoe is no device, and nothing stands under it"]),
    (1, {"a": "r", "b": "s"}, ["r, s have no parent; put them under one root"]),
    (2, {"a": "x", "b": "y", "x": "y", "y": "x"}, ["from a, b is a cycle"]),
    (1, {"a": "a", "b": "a"}, ["a holds data", "from a, b is a cycle"]),
    (2, {"a": "x", "x": "r", "b": "r"}, ["b has 1 levels above it, but 2 models"]),
    (1, {"a": "x", "x": "r", "b": "x"}, ["a has 2 levels above it, but 1 models"]),
    (2, {"a": "b", "b": "r"}, ["b holds data and cannot be a parent too"]),
]


@pytest.mark.parametrize(("above", "parents", "texts"), WRONG)
def test_what_is_no_tree_is_refused(above: int, parents: dict[str, str], texts: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        planted(["a", "b"], above, parents)
    assert all(fault.path == "tree.parents" for fault in caught.value.faults)
    for part in texts:
        assert part in str(caught.value)
