"""docs/explanation/recovery.md draws and explains exactly the possible transitions."""

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

Arrow = tuple[str, str]


def _after(current: RoundState) -> Iterator[RoundState]:
    """Every round that one event, or one act of a device, makes of this one."""
    yield from (step(current, event)[0] for event in EVENTS)
    for index, item in enumerate(current.assignments):
        for wanted, sources in DEVICE_MOVES.items():
            if item.phase in sources:
                changed = list(current.assignments)
                changed[index] = replace(item, phase=AssignmentPhase(wanted))
                yield replace(current, assignments=tuple(changed))


def _arrows() -> set[Arrow]:
    """Every change of phase that can happen, by walking all that can be reached."""
    starts = [
        RoundState(number, DEVICES if number else (), evaluators, POLICY, clusters=tree)
        for number in (0, 1)
        for evaluators in (DEVICES, ())
        for tree in ((), (Cluster("a", ("b",)),))
    ]
    seen, queue, found = set(starts), list(starts), set()
    while queue:
        current = queue.pop()
        for after in _after(current):
            if after.phase is not current.phase:
                found.add((current.phase.value, after.phase.value))
            if after not in seen:
                seen.add(after)
                queue.append(after)
    return found


def _drawn() -> set[Arrow]:
    (drawing,) = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", PAGE, re.DOTALL)
    return set(re.findall(r"^    (\w+) --> (\w+)$", drawing, re.MULTILINE))


def _explained() -> dict[Arrow, str]:
    """Arrow -> the test that covers it."""
    rows = re.findall(r"^\| (\w+) → (\w+) \|.*\| `(test_\w+)` \|$", PAGE, re.MULTILINE)
    return {(source, target): test for source, target, test in rows}


def test_every_arrow_is_drawn_and_explained() -> None:
    arrows = _arrows()
    assert {phase for arrow in arrows for phase in arrow} == {phase.value for phase in RoundPhase}
    assert _drawn() == arrows
    assert _explained().keys() == arrows


@pytest.mark.parametrize("test", sorted(set(_explained().values())))
def test_the_test_named_beside_an_arrow_is_there(test: str) -> None:
    sources = (ROOT / "tests").rglob("test_*.py")
    assert any(f"def {test}(" in path.read_text() for path in sources)
