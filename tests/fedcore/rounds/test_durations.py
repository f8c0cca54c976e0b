"""Predicted round times and the deadlines that follow from them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.rounds.durations import deadline_s, predict, quantile, round_seconds, version_s


@pytest.mark.parametrize(
    ("metrics", "seconds"),
    [
        ({"seconds": 2.0, "download_s": 0.5, "upload_s": 1.5}, 4.0),
        ({"seconds": 2}, 2.0),
        ({}, None),
        ({"seconds": 0.0}, None),
        ({"seconds": "long"}, None),
        ({"seconds": True}, None),
        ({"seconds": math.inf}, None),
        ({"seconds": 2.0, "upload_s": None}, None),
    ],
)
def test_round_seconds_of_a_report(metrics: dict, seconds: float | None) -> None:  # type: ignore[type-arg]
    assert round_seconds(metrics) == seconds


def test_prediction_is_the_median_of_three_reports() -> None:
    history = [("a", 4.0), ("b", 9.0), ("a", 100.0), ("a", 6.0), ("a", 1.0), ("a", 1.0)]
    assert predict(history) == {"a": 6.0, "b": 9.0}


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (1.0, 4)]
)
def test_quantile_of_four_values(share: float, expected: float) -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_quantile_is_the_smallest_covering_value(values: list[float], share: float) -> None:
    expected = quantile(values, share)
    covered = sum(value <= expected for value in values)
    below = sum(value < expected for value in values)
    assert covered >= round(share * len(values), 9) > below - 1e-6


TIMES = {"a": 10.0, "b": 20.0, "c": 100.0, "d": 0.001}


@pytest.mark.parametrize(
    ("members", "share", "slack", "expected"),
    [
        ("abc", 0.5, 1.0, 20.0),
        ("abc", 0.6, 1.5, 30.0),
        ("abc", 1.0, 2.0, 200.0),
        ("abc", 1.0, 9.0, 600.0),  # at most the job's own deadline
        ("abc", 0.0, 1.0, 600.0),  # off
        ("", 0.5, 1.0, 600.0),
        ("ax", 0.5, 1.0, 10.0),
        ("ax", 1.0, 1.0, 600.0),  # a device without a report counts as the slowest
        ("xyz", 0.5, 1.0, 600.0),
        ("d", 1.0, 1.0, 1.0),  # messages take time as well
    ],
)
def test_deadline_from_quantile_and_slack(
    members: str, share: float, slack: float, expected: float
) -> None:
    assert deadline_s(tuple(members), TIMES, share, slack, 600.0) == expected


@pytest.mark.parametrize(
    ("times", "size", "together", "expected"),
    [
        ([10.0], 1, 1, 10.0),
        ([10.0, 10.0], 1, 2, 5.0),
        ([10.0, 10.0], 2, 2, 10.0),
        ([1.0, 10.0], 1, 2, 1 / 1.1),
        ([10.0, 10.0, 10.0, 10.0], 1, 2, 5.0),  # only two of the four train at a time
    ],
)
def test_seconds_between_versions(
    times: list[float], size: int, together: int, expected: float
) -> None:
    assert version_s(times, size, together) == pytest.approx(expected)
