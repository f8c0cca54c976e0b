"""Time that does not count: the server was away, or a clock jumped; work that is taken back."""

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
    ("gap_s", "counts_not_s"),
    [
        (2.0, 0.0),  # as planned
        (0.0, 0.0),  # a report came between two passes
        (5.0, 0.0),  # a busy machine
        (-3.0, 0.0),  # a clock that is trimmed
        (5.1, 3.1),
        (302.0, 300.0),  # five minutes away
        (3602.0, 3600.0),  # an hour away, or the clock an hour forward
        (-3598.0, -3600.0),  # the clock an hour back
    ],
)
def test_what_a_gap_between_two_looks_means(gap_s: float, counts_not_s: float) -> None:
    assert outage_s(gap_s, 2.0) == pytest.approx(counts_not_s)


def _training() -> RoundState:
    """A round whose two devices train since second 0."""
    current, _ = step(RoundState(1, ("a", "b"), ("a", "b"), POLICY), Tick(0.0, ONLINE))
    at_work = [replace(item, phase=AssignmentPhase.TRAINING) for item in current.assignments]
    return replace(current, assignments=tuple(at_work), phase=RoundPhase.COLLECTING)


def test_a_silent_device_is_not_told_but_may_take_its_work_back() -> None:
    after, effects = step(_training(), Tick(61.0))
    revoked = [effect for effect in effects if isinstance(effect, Revoke)]
    assert [effect.silent for effect in revoked] == [True, True]
    lost = latest_attempts(after, Task.TRAIN)["a"]
    assert lost.phase is AssignmentPhase.EXPIRED
    assert may_resume(after, lost)


def test_work_is_not_given_back_once_it_was_offered_again() -> None:
    silent, _ = step(_training(), Tick(61.0))
    lost = latest_attempts(silent, Task.TRAIN)["a"]
    again, _ = step(silent, Tick(63.0, ONLINE))
    assert latest_attempts(again, Task.TRAIN)["a"].attempt == 2
    assert not may_resume(again, lost)


def test_work_is_not_given_back_to_a_round_that_went_on() -> None:
    silent, _ = step(_training(), Tick(61.0))
    lost = latest_attempts(silent, Task.TRAIN)["a"]
    over, _ = step(silent, Interrupted(62.0, "the job was paused"))
    assert not may_resume(over, lost)
    evaluating = replace(silent, phase=RoundPhase.EVALUATING)
    assert not may_resume(evaluating, lost)


@pytest.mark.parametrize("phase", [AssignmentPhase.FAILED, AssignmentPhase.REFUSED])
def test_only_silence_is_forgiven(phase: AssignmentPhase) -> None:
    current = _training()
    first = current.assignments[0]
    for lost in (
        replace(first, phase=phase, reason="silent for longer than its lease of 60 s"),
        replace(first, phase=AssignmentPhase.EXPIRED, reason="its agent was restarted"),
    ):
        others = tuple(item for item in current.assignments if item.device != first.device)
        assert not may_resume(replace(current, assignments=(lost, *others)), lost)


def test_a_device_told_by_the_end_of_a_round_hears_of_it() -> None:
    _, effects = step(_training(), Interrupted(1.0, "the job was cancelled"))
    assert [effect.silent for effect in effects if isinstance(effect, Revoke)] == [False, False]
