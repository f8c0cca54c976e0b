"""What may be asked of a round, and what a device may do."""

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
@pytest.mark.parametrize("wanted", AssignmentPhase)
def test_what_a_device_may_do_and_why_not(phase: AssignmentPhase, wanted: AssignmentPhase) -> None:
    refusal = move_refusal(phase, wanted)
    if phase in DEVICE_MOVES.get(wanted, ()):
        assert refusal == ""
        assert phase in ACTIVE
    else:
        assert refusal, f"{phase} -> {wanted} has no reason"
        assert phase.value in refusal or "answered" in refusal


def test_moves_that_a_device_must_be_able_to_make() -> None:
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
    assert "the first answer counts" in move_refusal(
        AssignmentPhase.FOLDED, AssignmentPhase.REPORTED
    )
    assert "is over (expired)" in move_refusal(AssignmentPhase.EXPIRED, AssignmentPhase.TRAINING)


SEEN = {"a": NOW - 40.4, "b": NOW + 3}
SENTENCES = [
    (a_round("planned"), "waiting for the coordinator to offer the round"),
    (
        a_round("collecting", part("a", "training"), part("b", "reported")),
        "waiting for 1 of 2 to train: a, last seen 40 s ago",
    ),
    (
        a_round("collecting", part("a", "training"), part("b", "training")),
        "waiting for 2 of 2 to train: a, last seen 40 s ago, b, last seen 0 s ago",
    ),
    (
        a_round("evaluating", scored("c", "offered"), evaluators=("c",)),
        "waiting for 1 of 1 to evaluate: c, never seen",
    ),
    (
        a_round(
            "collecting",
            *(part(device, "training") for device in "abcde"),
            members=tuple("abcde"),
        ),
        "waiting for 5 of 5 to train: a, last seen 40 s ago, b, last seen 0 s ago, c, never seen "
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
def test_waiting_for_reads_like_a_sentence(current: RoundState, sentence: str) -> None:
    assert waiting_for(current, NOW, SEEN) == sentence


def test_a_device_that_may_still_be_asked_again_is_waited_for() -> None:
    current = a_round("collecting", part("a", "expired"), part("b", "reported"))
    assert tally(current, TRAIN) == (["b"], ["a"])
    assert "1 of 2 to train: a" in waiting_for(current, NOW, {})
    lost = a_round("collecting", part("a", "expired"), part("a", "failed", 2, reason="no disk"))
    assert tally(lost, TRAIN) == ([], [])
    assert failure_reasons(lost, TRAIN) == "a: no disk"
    assert latest_attempts(lost, TRAIN)["a"].attempt == 2
