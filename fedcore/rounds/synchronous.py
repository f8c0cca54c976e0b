"""The step function of a synchronous round: (state, event) -> (state, effects).

``tests/fedcore/rounds/test_synchronous.py`` covers every transition.
"""

from __future__ import annotations

from dataclasses import replace

from fedcore.rounds.clusters import give_up_all, offer_folds, pending_heads, unfolded_heads
from fedcore.rounds.queries import (
    latest_attempts,
    may_retry,
    missing_evaluations,
    tally,
    with_reasons,
)
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


def step(state: RoundState, event: RoundEvent) -> tuple[RoundState, tuple[Effect, ...]]:
    """Apply one event. A round that has ended ignores every event."""
    if state.phase in ENDED:
        return state, ()
    builder = RoundBuilder(state)
    aggregating = state.phase is RoundPhase.AGGREGATING
    if isinstance(event, Interrupted):
        # A round whose model is stored closes; any other fails, so that it is started again later.
        aggregated = state.phase is RoundPhase.EVALUATING and state.number > 0
        builder.revoke_active(event.reason)
        if aggregated:
            _mark_folded(builder)
        builder.move(RoundPhase.CLOSED if aggregated else RoundPhase.FAILED, event.reason)
    elif isinstance(event, AggregationFailed):
        if aggregating:
            builder.move(RoundPhase.FAILED, event.reason)
    elif isinstance(event, Aggregated):
        if aggregating:
            _mark_folded(builder)
            _start_evaluating(builder, event.now)
    else:
        _tick(builder, event)
    return builder.state, tuple(builder.effects)


def _tick(builder: RoundBuilder, tick: Tick) -> None:
    phase = builder.state.phase
    if phase is RoundPhase.PLANNED and builder.state.number == 0:
        _start_evaluating(builder, tick.now)
    elif phase is RoundPhase.PLANNED:
        deadline_at = tick.now + builder.state.policy.deadline_s
        builder.move(RoundPhase.BROADCASTING, deadline_at=deadline_at)
        for device in builder.state.members:
            builder.offer(device, Task.TRAIN, 1, tick.now)
    elif phase is RoundPhase.AGGREGATING:
        if due(builder.state, tick.now):
            limit_s = builder.state.policy.aggregation_s
            reason = f"no worker aggregated the updates within {limit_s:.0f} s"
            builder.move(RoundPhase.FAILED, reason)
    elif phase is RoundPhase.FOLDING:
        expire_silent(builder, tick)
        _fold_clusters(builder, tick)
    elif phase is RoundPhase.EVALUATING:
        expire_silent(builder, tick)
        _close_evaluation(builder, tick)
        if builder.state.phase is RoundPhase.EVALUATING:
            _offer_retries(builder, Task.EVALUATE, tick)
    else:
        expire_silent(builder, tick)
        _close_collection(builder, tick)
        if builder.state.phase in (RoundPhase.BROADCASTING, RoundPhase.COLLECTING):
            _offer_retries(builder, Task.TRAIN, tick)


def _start_evaluating(builder: RoundBuilder, now: float) -> None:
    if not builder.state.evaluators:
        builder.move(RoundPhase.CLOSED)
        return
    deadline_at = now + builder.state.policy.evaluation_limit_s
    builder.move(RoundPhase.EVALUATING, deadline_at=deadline_at)
    for device in builder.state.evaluators:
        builder.offer(device, Task.EVALUATE, 1, now)


def _offer_retries(builder: RoundBuilder, task: Task, tick: Tick) -> None:
    """Offer the next attempt to every reachable device that lost its last one."""
    for device, item in latest_attempts(builder.state, task).items():
        lost = item.phase in (AssignmentPhase.EXPIRED, AssignmentPhase.FAILED)
        if lost and may_retry(builder.state, item) and device in tick.online:
            builder.offer(device, task, item.attempt + 1, tick.now)


def _close_collection(builder: RoundBuilder, tick: Tick) -> None:
    """Aggregate once enough updates have arrived, or fail once a quorum is out of reach."""
    current = builder.state
    reported, pending = tally(current, Task.TRAIN)
    over = not pending or due(current, tick.now)
    if len(reported) >= current.policy.target or (len(reported) >= current.policy.quorum and over):
        builder.revoke_active("the round closed without it")
        if pending_heads(builder.state):
            deadline_at = tick.now + current.policy.deadline_s
            builder.move(RoundPhase.FOLDING, deadline_at=deadline_at)
            _fold_clusters(builder, tick)
        else:
            _aggregate(builder, tick.now)
    elif over:
        why = "by the deadline" if pending else "and no other device can"
        text = f"{len(reported)} of {current.policy.quorum} needed devices reported {why}"
        builder.revoke_active("the round failed")
        builder.move(RoundPhase.FAILED, with_reasons(text, current, Task.TRAIN))
    elif current.phase is RoundPhase.BROADCASTING and any(
        item.phase is not AssignmentPhase.OFFERED for item in current.assignments
    ):
        builder.state = replace(current, phase=RoundPhase.COLLECTING)


def _fold_clusters(builder: RoundBuilder, tick: Tick) -> None:
    """Have the heads fold their clusters; aggregate once each has done so or cannot."""
    if due(builder.state, tick.now):
        give_up_all(builder)
    offer_folds(builder, tick)
    if pending_heads(builder.state):
        return
    if lost := unfolded_heads(builder.state):
        text = f"only {', '.join(lost)} can fold the cluster's updates, and did not"
        builder.move(RoundPhase.FAILED, with_reasons(text, builder.state, Task.FOLD))
    else:
        _aggregate(builder, tick.now)


def _aggregate(builder: RoundBuilder, now: float) -> None:
    deadline_at = now + builder.state.policy.aggregation_s
    builder.move(RoundPhase.AGGREGATING, deadline_at=deadline_at)
    builder.effects.append(Aggregate(tuple(tally(builder.state, Task.TRAIN)[0])))


def _close_evaluation(builder: RoundBuilder, tick: Tick) -> None:
    """Close the round once nobody is left to evaluate. Fail if nobody measured the first model."""
    current = builder.state
    reported, pending = tally(current, Task.EVALUATE)
    if pending and not due(current, tick.now):
        return
    builder.revoke_active("the evaluation closed without it")
    if not reported and current.number == 0:
        text = "no device could evaluate the model"
        builder.move(RoundPhase.FAILED, with_reasons(text, current, Task.EVALUATE))
        return
    _mark_folded(builder)
    builder.move(RoundPhase.CLOSED, missing_evaluations(current, len(reported)))


def _mark_folded(builder: RoundBuilder) -> None:
    for item in builder.state.assignments:
        if item.phase is AssignmentPhase.REPORTED:
            builder.put(replace(item, phase=AssignmentPhase.FOLDED))
