"""Rounds of an asynchronous job in the states that the tests need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedcore.rounds import Assignment, Buffering, Round
from tests.fedcore.rounds.rounds import NOW, POLICY, a_round, part

BUFFERING = Buffering(size=2, concurrency=3, max_staleness=2, seed=0, last=False)
HELD = {"lease_until": NOW + 1000}


def version(phase: str, *parts: Assignment, number: int = 3, **changes: Any) -> Round:
    """A round of an asynchronous job of the devices a, b and c; evaluated only where asked."""
    buffering = replace(BUFFERING, **changes.pop("buffering", {}))
    values = {
        "members": ("a", "b", "c"),
        "evaluators": (),
        "policy": replace(POLICY, buffering=buffering),
        **changes,
    }
    return a_round(phase, *parts, number=number, **values)


def older(*parts: Assignment, number: int = 2, **changes: Any) -> Round:
    return version("closed", *parts, number=number, deadline_at=None, **changes)


def buffered(device: str, attempt: int = 1, number: int = 3) -> Assignment:
    """An update that is in the buffer of a round."""
    return part(device, "reported", attempt, buffered_in=number)


LAST: dict[str, Any] = {"buffering": {"last": True}}
BUSY = (part("b", "training", **HELD), part("c", "training", **HELD))
