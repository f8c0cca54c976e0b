"""Outages and clock jumps, and attempts that are resumed afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedcore.rounds.clock_gaps import outage_s
from fedcore.rounds.queries import latest_attempts, may_resume
from fedcore.rounds.synchronous import step
from fedcore.rounds.types import (
    AssignmentPhase,
    Interrupted,
    Revoke,
    RoundPhase,
    RoundPolicy,
    RoundState,
    Task,
    Tick,
)

POLICY = RoundPolicy(target=2, quorum=2, deadline_s=600.0, lease_s=60.0, max_attempts=3)
ONLINE = frozenset({"a", "b"})


@pytest.mark.parametrize(
    ("gap_s", "expected_s"),
    [
        (2.0, 0.0),  # as planned
        (0.0, 0.0),  # a report triggered a pass in between
        (5.0, 0.0),  # a busy machine
        (-3.0, 0.0),  # a clock that is adjusted
        (5.1, 3.1),
        (302.0, 300.0),  # down for five minutes
        (3602.0, 3600.0),  # down for an hour, or the clock an hour ahead
        (-3598.0, -3600.0),  # the clock set back an hour
    ],
)
def test_outage_from_gap_between_passes(gap_s: float, expected_s: float) -> None:
    assert outage_s(gap_s, 2.0) == pytest.approx(expected_s)


def _training() -> RoundState:
    """A round whose two devices have been training since second 0."""
    current, _ = step(RoundState(1, ("a", "b"), ("a", "b"), POLICY), Tick(0.0, ONLINE))
    at_work = [replace(item, phase=AssignmentPhase.TRAINING) for item in current.assignments]
    return replace(current, assignments=tuple(at_work), phase=RoundPhase.COLLECTING)


def test_silent_device_gets_no_cancel_and_may_resume() -> None:
    after, effects = step(_training(), Tick(61.0))
    revoked = [effect for effect in effects if isinstance(effect, Revoke)]
    assert [effect.silent for effect in revoked] == [True, True]
    lost = latest_attempts(after, Task.TRAIN)["a"]
    assert lost.phase is AssignmentPhase.EXPIRED
    assert may_resume(after, lost)


def test_attempt_cannot_resume_after_a_newer_offer() -> None:
    silent, _ = step(_training(), Tick(61.0))
    lost = latest_attempts(silent, Task.TRAIN)["a"]
    again, _ = step(silent, Tick(63.0, ONLINE))
    assert latest_attempts(again, Task.TRAIN)["a"].attempt == 2
    assert not may_resume(again, lost)


def test_attempt_cannot_resume_in_a_later_phase() -> None:
    silent, _ = step(_training(), Tick(61.0))
    lost = latest_attempts(silent, Task.TRAIN)["a"]
    over, _ = step(silent, Interrupted(62.0, "the job was paused"))
    assert not may_resume(over, lost)
    evaluating = replace(silent, phase=RoundPhase.EVALUATING)
    assert not may_resume(evaluating, lost)


@pytest.mark.parametrize("phase", [AssignmentPhase.FAILED, AssignmentPhase.REFUSED])
def test_only_silent_attempts_may_resume(phase: AssignmentPhase) -> None:
    current = _training()
    first = current.assignments[0]
    for lost in (
        replace(first, phase=phase, reason="silent for longer than its lease of 60 s"),
        replace(first, phase=AssignmentPhase.EXPIRED, reason="its agent was restarted"),
    ):
        others = tuple(item for item in current.assignments if item.device != first.device)
        assert not may_resume(replace(current, assignments=(lost, *others)), lost)


def test_interrupt_revokes_reachable_devices() -> None:
    _, effects = step(_training(), Interrupted(1.0, "the job was cancelled"))
    assert [effect.silent for effect in effects if isinstance(effect, Revoke)] == [False, False]
