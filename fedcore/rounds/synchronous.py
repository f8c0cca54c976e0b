"""The step function of a round. ``tests/fedcore/rounds/test_synchronous.py`` walks its arrows."""

from __future__ import annotations

from dataclasses import replace

from fedcore.rounds.clusters import give_up_all, offer_folds, pending_heads, unfolded_heads
from fedcore.rounds.queries import failure_reasons, latest_attempts, may_retry, tally
from fedcore.rounds.round_builder import RoundBuilder, due, expire_silent
from fedcore.rounds.types import (
    ENDED,
    Aggregate,
    Aggregated,
    AggregationFailed,
    AssignmentPhase,
    Effect,
    Interrupted,
    RoundEvent,
    RoundPhase,
    RoundState,
    Task,
    Tick,
)


def step(round: RoundState, event: RoundEvent) -> tuple[RoundState, tuple[Effect, ...]]:
    """Apply one event. A round that has ended stays as it is, whatever comes."""
    if round.phase in ENDED:
        return round, ()
    draft = RoundBuilder(round)
    if isinstance(event, Interrupted):
        _interrupt(draft, event.reason)
    elif isinstance(event, AggregationFailed):
        if round.phase is RoundPhase.AGGREGATING:
            draft.move(RoundPhase.FAILED, event.reason)
    elif isinstance(event, Aggregated):
        if round.phase is RoundPhase.AGGREGATING:
            _folded(draft)
            _start_evaluating(draft, event.now)
    else:
        _tick(draft, event)
    return draft.round, tuple(draft.effects)


def _interrupt(draft: RoundBuilder, reason: str) -> None:
    """What was aggregated is kept; everything before that is started again another time."""
    aggregated = draft.round.phase is RoundPhase.EVALUATING and draft.round.number > 0
    draft.revoke_active(reason)
    if aggregated:
        _folded(draft)
    draft.move(RoundPhase.CLOSED if aggregated else RoundPhase.FAILED, reason)


def _tick(draft: RoundBuilder, tick: Tick) -> None:
    phase = draft.round.phase
    if phase is RoundPhase.PLANNED:
        _start(draft, tick.now)
        return
    if phase is RoundPhase.AGGREGATING:
        if due(draft.round, tick.now):
            limit = draft.round.policy.aggregation_s
            draft.move(RoundPhase.FAILED, f"no worker aggregated the updates within {limit:.0f} s")
        return
    if phase is RoundPhase.FOLDING:
        expire_silent(draft, tick)
        _fold_clusters(draft, tick)
        return
    task = Task.EVALUATE if phase is RoundPhase.EVALUATING else Task.TRAIN
    expire_silent(draft, tick)
    (_close_evaluation if task is Task.EVALUATE else _close_collection)(draft, tick)
    if draft.round.phase in (phase, RoundPhase.COLLECTING):  # nothing new for a round that closed
        _offer_again(draft, task, tick)


def _start(draft: RoundBuilder, now: float) -> None:
    if draft.round.number == 0:
        _start_evaluating(draft, now)
        return
    draft.move(RoundPhase.BROADCASTING, deadline_at=now + draft.round.policy.deadline_s)
    for device in draft.round.members:
        draft.offer(device, Task.TRAIN, 1, now)


def _start_evaluating(draft: RoundBuilder, now: float) -> None:
    if not draft.round.evaluators:
        draft.move(RoundPhase.CLOSED)
        return
    limit = now + draft.round.policy.evaluation_limit_s
    draft.move(RoundPhase.EVALUATING, deadline_at=limit)
    for device in draft.round.evaluators:
        draft.offer(device, Task.EVALUATE, 1, now)


def _offer_again(draft: RoundBuilder, task: Task, tick: Tick) -> None:
    """A device that lost its attempt gets the next one as soon as it is reachable."""
    for device, item in latest_attempts(draft.round, task).items():
        lost = item.phase in (AssignmentPhase.EXPIRED, AssignmentPhase.FAILED)
        if lost and may_retry(draft.round, item) and device in tick.online:
            draft.offer(device, task, item.attempt + 1, tick.now)


def _close_collection(draft: RoundBuilder, tick: Tick) -> None:
    current = draft.round
    reported, open_ = tally(current, Task.TRAIN)
    if len(reported) >= current.policy.target or (
        len(reported) >= current.policy.quorum and (not open_ or due(current, tick.now))
    ):
        draft.revoke_active("the round closed without it")
        if pending_heads(draft.round):
            draft.move(RoundPhase.FOLDING, deadline_at=tick.now + current.policy.deadline_s)
            _fold_clusters(draft, tick)
        else:
            _aggregate(draft, tick.now)
    elif not open_ or due(current, tick.now):
        _fail_collection(draft, len(reported), bool(open_))
    elif current.phase is RoundPhase.BROADCASTING and _anyone_accepted(current):
        draft.round = replace(current, phase=RoundPhase.COLLECTING)


def _fold_clusters(draft: RoundBuilder, tick: Tick) -> None:
    """The heads of clusters fold; the server goes on once each has, or cannot."""
    if due(draft.round, tick.now):
        give_up_all(draft)
    offer_folds(draft, tick)
    if pending_heads(draft.round):
        return
    if lost := unfolded_heads(draft.round):
        reasons = failure_reasons(draft.round, Task.FOLD)
        draft.move(RoundPhase.FAILED, f"nobody but {', '.join(lost)} can fold: {reasons}")
    else:
        _aggregate(draft, tick.now)


def _aggregate(draft: RoundBuilder, now: float) -> None:
    limit = now + draft.round.policy.aggregation_s
    draft.move(RoundPhase.AGGREGATING, deadline_at=limit)
    draft.effects.append(Aggregate(tuple(tally(draft.round, Task.TRAIN)[0])))


def _fail_collection(draft: RoundBuilder, reported: int, late: bool) -> None:
    why = "by the deadline" if late else "and nobody is left who could"
    reasons = failure_reasons(draft.round, Task.TRAIN)
    draft.revoke_active("the round failed")
    text = f"{reported} of {draft.round.policy.quorum} needed devices reported {why}"
    draft.move(RoundPhase.FAILED, f"{text}{': ' + reasons if reasons else ''}")


def _close_evaluation(draft: RoundBuilder, tick: Tick) -> None:
    reported, open_ = tally(draft.round, Task.EVALUATE)
    if open_ and not due(draft.round, tick.now):
        return
    reasons = failure_reasons(draft.round, Task.EVALUATE)
    draft.revoke_active("the evaluation closed without it")
    if not reported and draft.round.number == 0:
        text = "no device could evaluate the model"
        draft.move(RoundPhase.FAILED, f"{text}{': ' + reasons if reasons else ''}")
        return
    _folded(draft)
    missing = len(draft.round.evaluators) - len(reported)
    draft.move(RoundPhase.CLOSED, f"{missing} evaluations are missing" if missing else "")


def _folded(draft: RoundBuilder) -> None:
    for item in draft.round.assignments:
        if item.phase is AssignmentPhase.REPORTED:
            draft.put(replace(item, phase=AssignmentPhase.FOLDED))


def _anyone_accepted(round: RoundState) -> bool:
    return any(a.phase is not AssignmentPhase.OFFERED for a in round.assignments)
