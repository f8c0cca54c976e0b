"""In which rounds a job evaluates."""

from __future__ import annotations

from typing import Any

import pytest

from fedcore.spec.parse import parse_spec


@pytest.mark.parametrize(
    ("values", "evaluating"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"every": 2}, [0, 2, 4, 5]),
        ({"every": 5}, [0, 5]),
        ({"every": 9}, [0, 5]),
        ({"every": 0}, [0, 5]),
        ({"every": 3, "initial": False}, [3, 5]),
        ({"every": 0, "initial": False}, [5]),
    ],
)
def test_which_of_five_rounds_evaluate(values: dict[str, Any], evaluating: list[int]) -> None:
    evaluation = parse_spec({"evaluation": values}).evaluation
    assert [number for number in range(6) if evaluation.due(number, 5)] == evaluating
