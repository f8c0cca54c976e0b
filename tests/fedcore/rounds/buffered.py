"""Builders for versions of an asynchronous job in any state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedcore.rounds.types import AssignmentState, Buffering, RoundState
from tests.fedcore.rounds.rounds import NOW, POLICY, a_round, part

BUFFERING = Buffering(size=2, concurrency=3, max_staleness=2, seed=0, last=False)
LEASED = {"lease_until": NOW + 1000}


def version(phase: str, *parts: AssignmentState, number: int = 3, **changes: Any) -> RoundState:
    """A version of a job with devices a, b and c; without evaluators unless given."""
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
    """An update in the buffer of version ``number``."""
    return part(device, "reported", attempt, buffered_in=number)


LAST: dict[str, Any] = {"buffering": {"last": True}}
BUSY = (part("b", "training", **LEASED), part("c", "training", **LEASED))
