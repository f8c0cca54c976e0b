"""Hypothesis strategies for trees of devices, as mappings from child to parent."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = tuple("abcdefgh")


@st.composite
def forests(draw: st.DrawFn, names: tuple[str, ...] = NAMES) -> dict[str, str]:
    """Any tree: each device stands under none, or under one that was drawn before it."""
    order = draw(st.permutations(names))
    parents = {}
    for place, name in enumerate(order[1:], start=1):
        above = draw(st.sampled_from((None, *order[:place])))
        if above is not None:
            parents[name] = above
    return parents
