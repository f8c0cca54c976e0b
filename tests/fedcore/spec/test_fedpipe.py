"""What a job has to be for FedPipe: every fault at once, each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from fedcore.errors import SpecError
from fedcore.spec.parse import parse_spec

RIGHT: dict[str, Any] = {"method": {"name": "fedpipe"}, "adapter": {"aggregation": "flexlora"}}


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"adapter": {"aggregation": "fedit"}}, "adapter.aggregation", "must be flexlora"),
        ({"adapter": {"aggregation": "stack"}}, "adapter.aggregation", "must be flexlora"),
        ({"adapter": {"kind": "full"}}, "adapter.kind", "must be lora"),
        ({"evaluation": {"initial": False}}, "evaluation.initial", "score their matrices"),
        (
            {"adapter": {"aggregation": "flexlora", "ranks": "4,8"}},
            "adapter.ranks",
            "is what fedpipe decides",
        ),
        ({"method": {"name": "fedpipe", "memory_budget_mb": -1}}, "method.memory_budget_mb", "0"),
    ],
)
def test_what_it_cannot_be_joined_with(changes: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec({**RIGHT, **changes})
    messages = {fault.path: fault.message for fault in refused.value.faults}
    assert reason in messages[path]


def test_without_it_none_of_this_matters() -> None:
    parse_spec(RIGHT)
    parse_spec({"evaluation": {"initial": False}})
