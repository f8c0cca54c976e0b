"""Builders for rounds in any state."""

from __future__ import annotations

from typing import Any

from fedcore.rounds.types import (
    Aggregated,
    AggregationFailed,
    AssignmentPhase,
    AssignmentState,
    Interrupted,
    RoundPhase,
    RoundPolicy,
    RoundState,
    Task,
    Tick,
)

TRAIN, EVALUATE = Task.TRAIN, Task.EVALUATE
NOW, DEADLINE, LEASE = 1000.0, 100.0, 10.0
POLICY = RoundPolicy(
    target=2, quorum=1, deadline_s=DEADLINE, lease_s=LEASE, max_attempts=2, aggregation_s=50.0
)
EVERYBODY = frozenset("abc")


def part(device: str, phase: str, attempt: int = 1, **changes: Any) -> AssignmentState:
    values = {"task": TRAIN, "lease_until": NOW + LEASE, **changes}
    return AssignmentState(device, attempt=attempt, phase=AssignmentPhase(phase), **values)


def scored(device: str, phase: str, attempt: int = 1, **changes: Any) -> AssignmentState:
    return part(device, phase, attempt, task=EVALUATE, **changes)


def a_round(phase: str, *parts: AssignmentState, number: int = 1, **changes: Any) -> RoundState:
    values: dict[str, Any] = {
        "members": ("a", "b") if number else (),
        "evaluators": ("a", "b"),
        "policy": POLICY,
        "deadline_at": None if phase == "planned" else NOW + DEADLINE,
        **changes,
    }
    return RoundState(number, phase=RoundPhase(phase), assignments=parts, **values)


def tick(later: float = 0.0, online: frozenset[str] = EVERYBODY) -> Tick:
    return Tick(NOW + later, online)


DONE, BROKEN = Aggregated(NOW), AggregationFailed(NOW, "no space")
STOP = Interrupted(NOW, "the job was paused")
DUE = DEADLINE + 1
SILENT = {"lease_until": NOW - 1}
