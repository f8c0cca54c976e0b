"""The phase diagram in docs/explanation/recovery.md shows exactly the possible transitions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedcore.rounds.synchronous import step
from fedcore.rounds.types import (
    DEVICE_MOVES,
    Aggregated,
    AggregationFailed,
    AssignmentPhase,
    Interrupted,
    RoundEvent,
    RoundPhase,
    RoundPolicy,
    RoundState,
    Tick,
)
from fedcore.topology import Cluster

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "explanation" / "recovery.md").read_text()
DEVICES = ("a", "b")
POLICY = RoundPolicy(target=2, quorum=1, deadline_s=600.0, lease_s=60.0, max_attempts=1)
EVENTS: tuple[RoundEvent, ...] = (
    *(
        Tick(now, online)
        for now in (0.0, 61.0, 9999.0)
        for online in (frozenset(DEVICES), frozenset())
    ),
    Aggregated(0.0),
    AggregationFailed(0.0, "no sound update"),
    Interrupted(0.0, "paused"),
)

Transition = tuple[str, str]


def _after(current: RoundState) -> Iterator[RoundState]:
    """Every round that one event, or one move of a device, leads to."""
    yield from (step(current, event)[0] for event in EVENTS)
    for index, item in enumerate(current.assignments):
        for target, sources in DEVICE_MOVES.items():
            if item.phase in sources:
                changed = list(current.assignments)
                changed[index] = replace(item, phase=AssignmentPhase(target))
                yield replace(current, assignments=tuple(changed))


def _transitions() -> set[Transition]:
    """Every change of phase among the reachable rounds."""
    starts = [
        RoundState(number, DEVICES if number else (), evaluators, POLICY, clusters=tree)
        for number in (0, 1)
        for evaluators in (DEVICES, ())
        for tree in ((), (Cluster("a", ("b",)),))
    ]
    seen, queue, transitions = set(starts), list(starts), set()
    while queue:
        current = queue.pop()
        for after in _after(current):
            if after.phase is not current.phase:
                transitions.add((current.phase.value, after.phase.value))
            if after not in seen:
                seen.add(after)
                queue.append(after)
    return transitions


def _diagram() -> set[Transition]:
    (drawing,) = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", PAGE, re.DOTALL)
    return set(re.findall(r"^    (\w+) --> (\w+)$", drawing, re.MULTILINE))


def _table() -> dict[Transition, str]:
    """Transition -> the test that covers it."""
    rows = re.findall(r"^\| (\w+) → (\w+) \|.*\| `(test_\w+)` \|$", PAGE, re.MULTILINE)
    return {(source, target): test for source, target, test in rows}


def test_phase_diagram_shows_every_transition() -> None:
    transitions = _transitions()
    assert {phase for pair in transitions for phase in pair} == {
        phase.value for phase in RoundPhase
    }
    assert _diagram() == transitions
    assert _table().keys() == transitions


@pytest.mark.parametrize("test", sorted(set(_table().values())))
def test_tests_named_in_recovery_page_exist(test: str) -> None:
    sources = (ROOT / "tests").rglob("test_*.py")
    assert any(f"def {test}(" in path.read_text() for path in sources)
