"""Rounds of an asynchronous job in the states that the tests need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedcore.rounds.types import AssignmentState, Buffering, RoundState
from tests.fedcore.rounds.rounds import NOW, POLICY, a_round, part

BUFFERING = Buffering(size=2, concurrency=3, max_staleness=2, seed=0, last=False)
HELD = {"lease_until": NOW + 1000}


def version(phase: str, *parts: AssignmentState, number: int = 3, **changes: Any) -> RoundState:
    """A round of an asynchronous job of the devices a, b and c; evaluated only where asked."""
    buffering = replace(BUFFERING, **changes.pop("buffering", {}))
    values = {
        "members": ("a", "b", "c"),
        "evaluators": (),
        "policy": replace(POLICY, buffering=buffering),
        **changes,
    }
    return a_round(phase, *parts, number=number, **values)


def older(*parts: AssignmentState, number: int = 2, **changes: Any) -> RoundState:
    return version("closed", *parts, number=number, deadline_at=None, **changes)


def buffered(device: str, attempt: int = 1, number: int = 3) -> AssignmentState:
    """An update that is in the buffer of a round."""
    return part(device, "reported", attempt, buffered_in=number)


LAST: dict[str, Any] = {"buffering": {"last": True}}
BUSY = (part("b", "training", **HELD), part("c", "training", **HELD))
