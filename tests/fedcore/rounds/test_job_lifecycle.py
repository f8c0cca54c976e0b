"""Life cycle of a job: moves by a person, and the coordinator's next step."""

from __future__ import annotations

import pytest

from fedcore.rounds.job_lifecycle import (
    OVER,
    PERSON_MOVES,
    Complete,
    Fail,
    Initialise,
    JobPhase,
    LastRound,
    NextMove,
    StartRound,
    StepRound,
    move_refusal,
    next_move,
)
from fedcore.rounds.types import ENDED, RoundPhase

ALLOWED = {
    "launch": "draft",
    "pause": "queued running",
    "resume": "paused",
    "retry": "failed",
    "cancel": "draft queued running paused",
}


@pytest.mark.parametrize("phase", JobPhase)
@pytest.mark.parametrize("move", PERSON_MOVES)
def test_job_move_is_allowed_or_gives_a_reason(phase: JobPhase, move: str) -> None:
    refusal = move_refusal(phase, move)
    if phase.value in ALLOWED[move].split():
        assert refusal == ""
    else:
        assert refusal.startswith(f"a {phase.value} job cannot {move}; that needs a job that is ")
        assert all(name in refusal for name in ALLOWED[move].split())


def test_only_a_failed_job_can_be_retried() -> None:
    for move in PERSON_MOVES:
        for phase in OVER:
            assert bool(move_refusal(phase, move)) == ((phase, move) != (JobPhase.FAILED, "retry"))


def last(number: int, phase: str, reason: str = "") -> LastRound:
    return LastRound(number, RoundPhase(phase), reason)


NEXT = [
    # (rounds of the job, is the model there, newest round, resumed) -> what to do
    ((3, False, None, False), Initialise()),
    ((3, False, last(0, "failed"), True), Initialise()),
    ((3, True, None, False), StartRound(0)),
    ((3, True, None, True), StartRound(0)),
    ((3, True, last(0, "planned"), False), StepRound()),
    ((3, True, last(0, "evaluating"), False), StepRound()),
    ((3, True, last(0, "closed"), False), StartRound(1)),
    ((3, True, last(1, "broadcasting"), False), StepRound()),
    ((3, True, last(1, "collecting"), True), StepRound()),
    ((3, True, last(1, "aggregating"), False), StepRound()),
    ((3, True, last(1, "failed", "no quorum"), False), Fail("no quorum")),
    ((3, True, last(1, "failed", "paused"), True), StartRound(1)),
    ((3, True, last(0, "failed", "paused"), True), StartRound(0)),
    ((3, True, last(2, "closed"), True), StartRound(3)),
    ((3, True, last(3, "evaluating"), False), StepRound()),
    ((3, True, last(3, "closed"), False), Complete()),
    ((3, True, last(3, "closed"), True), Complete()),
    ((3, True, last(3, "failed", "disk"), False), Fail("disk")),
]


@pytest.mark.parametrize(("state", "move"), NEXT)
def test_next_move(state: tuple[int, bool, LastRound | None, bool], move: NextMove) -> None:
    assert next_move(*state) == move


def test_job_runs_every_round_then_completes() -> None:
    newest, seen = None, []
    for _ in range(20):
        move = next_move(3, True, newest, False)
        seen.append(move)
        if isinstance(move, Complete):
            break
        assert isinstance(move, StartRound)
        newest = LastRound(move.number, RoundPhase.CLOSED)
    assert seen == [StartRound(0), StartRound(1), StartRound(2), StartRound(3), Complete()]


def test_open_round_is_stepped_not_restarted() -> None:
    for phase in set(RoundPhase) - ENDED:
        for resumed in (True, False):
            assert next_move(3, True, LastRound(1, phase), resumed) == StepRound()
