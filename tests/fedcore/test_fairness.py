"""Laws of the fairness measures, such as Jain's index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.fairness import evenness

SCORES = st.dictionaries(
    st.text(min_size=1, max_size=3), st.floats(0, 100, allow_subnormal=False), min_size=1
)


@given(SCORES)
def test_jain_index_is_between_its_bounds(scores: dict[str, float]) -> None:
    fairness = evenness(scores)
    assert fairness is not None
    assert 1 / len(scores) - 1e-9 <= fairness.jain <= 1 + 1e-9
    assert fairness.worst == min(scores.values()) == scores[fairness.worst_device]
    assert fairness.worst - 1e-9 <= fairness.mean <= max(scores.values()) + 1e-9


@given(SCORES, st.floats(0.5, 2))
def test_jain_index_is_scale_invariant(scores: dict[str, float], unit: float) -> None:
    one, two = evenness(scores), evenness({name: unit * value for name, value in scores.items()})
    assert one is not None and two is not None
    assert two.jain == pytest.approx(one.jain)
    assert two.spread == pytest.approx(unit * one.spread, abs=1e-9)


def test_known_answers() -> None:
    assert evenness({}) is None
    alike = evenness({"a": 5.0, "b": 5.0})
    assert alike is not None and (alike.jain, alike.spread) == (1.0, 0.0)
    one = evenness({"a": 0.0, "b": 8.0, "c": 0.0, "d": 0.0})
    assert one is not None
    assert (one.jain, one.mean, one.worst_device) == (0.25, 2.0, "a")
    assert one.spread == pytest.approx(12**0.5)
    nothing = evenness({"a": 0.0, "b": 0.0})
    assert nothing is not None and nothing.jain == 1.0
