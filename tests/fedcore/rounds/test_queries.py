"""Queries on a round, and the moves a device may make."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fedcore.rounds.queries import (
    failure_reasons,
    latest_attempts,
    move_refusal,
    tally,
    waiting_for,
)
from fedcore.rounds.types import ACTIVE, DEVICE_MOVES, LEASED, AssignmentPhase, RoundState
from tests.fedcore.rounds.rounds import NOW, TRAIN, a_round, part, scored


@pytest.mark.parametrize("phase", AssignmentPhase)
@pytest.mark.parametrize("target", AssignmentPhase)
def test_assignment_move_is_allowed_or_gives_a_reason(
    phase: AssignmentPhase, target: AssignmentPhase
) -> None:
    refusal = move_refusal(phase, target)
    if phase in DEVICE_MOVES.get(target, ()):
        assert refusal == ""
        assert phase in ACTIVE
    else:
        assert refusal, f"{phase} -> {target} has no reason"
        assert phase.value in refusal or "already has a result" in refusal


def test_assignment_moves_that_a_device_needs() -> None:
    path = ["offered", "accepted", "training", "uploading", "reported"]
    for before, after in pairwise(path):
        assert move_refusal(AssignmentPhase(before), AssignmentPhase(after)) == ""
    for phase in ACTIVE:
        assert move_refusal(phase, AssignmentPhase.FAILED) == ""
        assert move_refusal(phase, AssignmentPhase.REFUSED) == ""
    for phase in LEASED:
        assert move_refusal(phase, AssignmentPhase.REPORTED) == ""
    assert "offered cannot become reported" in move_refusal(
        AssignmentPhase.OFFERED, AssignmentPhase.REPORTED
    )
    assert "the first result counts" in move_refusal(
        AssignmentPhase.FOLDED, AssignmentPhase.REPORTED
    )
    assert "is over (expired)" in move_refusal(AssignmentPhase.EXPIRED, AssignmentPhase.TRAINING)


LAST_SEEN = {"a": NOW - 40.4, "b": NOW + 3}
SENTENCES = [
    (a_round("planned"), "waiting for the coordinator to offer the round"),
    (
        a_round("collecting", part("a", "training"), part("b", "reported")),
        "1 of 2 devices still training: a, last seen 40 s ago",
    ),
    (
        a_round("collecting", part("a", "training"), part("b", "training")),
        "2 of 2 devices still training: a, last seen 40 s ago, b, last seen 0 s ago",
    ),
    (a_round("collecting", part("b", "training"), members=("b",)), "1 device training"),
    (
        a_round("evaluating", scored("c", "offered"), evaluators=("c",)),
        "1 of 1 devices still evaluating: c, never seen",
    ),
    (
        a_round(
            "collecting",
            *(part(device, "training") for device in "abcde"),
            members=tuple("abcde"),
        ),
        "5 of 5 devices still training: a, last seen 40 s ago, b, last seen 0 s ago, c, never seen "
        "and 2 more",
    ),
    (
        a_round("aggregating", part("a", "reported")),
        "waiting for an aggregation worker to fold the updates",
    ),
    (a_round("closed"), ""),
    (a_round("failed"), ""),
]


@pytest.mark.parametrize(("current", "sentence"), SENTENCES)
def test_waiting_for_is_a_sentence(current: RoundState, sentence: str) -> None:
    assert waiting_for(current, NOW, LAST_SEEN) == sentence


REASONS = {"a": "connected, but its disk is full", "c": "offline, last seen 70 s ago"}
STALLED = [
    (
        a_round("collecting", part("a", "offered"), part("b", "training")),
        "waiting for a (connected, but its disk is full); 1 of 2 devices training",
    ),
    (
        a_round("collecting", part("a", "offered"), part("b", "reported")),
        "waiting for a (connected, but its disk is full)",
    ),
    (
        a_round("evaluating", scored("c", "offered"), evaluators=("c",)),
        "waiting for c (offline, last seen 70 s ago)",
    ),
    (
        a_round("collecting", part("a", "reported"), part("b", "training")),
        "1 of 2 devices still training: b, last seen 0 s ago",
    ),
]


@pytest.mark.parametrize(("current", "sentence"), STALLED)
def test_waiting_for_names_why_a_device_does_not_work(current: RoundState, sentence: str) -> None:
    assert waiting_for(current, NOW, LAST_SEEN, REASONS) == sentence


def test_tally_counts_devices_that_may_retry_as_pending() -> None:
    current = a_round("collecting", part("a", "expired"), part("b", "reported"))
    assert tally(current, TRAIN) == (["b"], ["a"])
    assert "1 of 2 devices still training: a" in waiting_for(current, NOW, {})
    lost = a_round("collecting", part("a", "expired"), part("a", "failed", 2, reason="no disk"))
    assert tally(lost, TRAIN) == ([], [])
    assert failure_reasons(lost, TRAIN) == "a: no disk"
    assert latest_attempts(lost, TRAIN)["a"].attempt == 2
