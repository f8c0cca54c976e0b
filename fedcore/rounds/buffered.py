"""The step function of an asynchronous job: a buffer of updates that started from several models.

FedBuff (Nguyen et al. 2022, arXiv 2106.06639). A round is one version of the model. It collects
until ``Buffering.size`` updates are in its buffer, whatever version they started from. Nobody waits
for it: a device gets new work on the newest model as soon as it reports. FedAsync (Xie et al. 2019,
arXiv 1903.03934) is a buffer of one.

A ``Window`` holds every round with work in flight, oldest first; only the newest collects. An
assignment stays with the round whose model it trains from; ``buffered_in`` names the round that
folds its update.

Our choices:

- While an aggregation runs, a device that reports waits for the new model.
- A device evaluates the newest version that is due before it trains again, so fewer devices measure
  the versions in between.
- At the deadline the buffer is folded however full it is.

``test_buffered.py`` and ``test_buffered_evaluation.py`` in ``tests/fedcore/rounds`` cover every
transition.
"""

from __future__ import annotations

from dataclasses import replace

from fedcore.rounds.queries import (
    latest_attempts,
    may_retry,
    missing_evaluations,
    train_attempts,
    unfolded_updates,
    with_reasons,
)
from fedcore.rounds.round_builder import RoundBuilder, due, expire_silent
from fedcore.rounds.types import (
    ACTIVE,
    DELIVERED,
    ENDED,
    Aggregate,
    Aggregated,
    AssignmentPhase,
    AssignmentState,
    Buffering,
    Effect,
    EvaluationArrived,
    Interrupted,
    RoundEvent,
    RoundPhase,
    RoundState,
    Task,
    Tick,
)
from fedcore.seeds import derive

Window = tuple[RoundState, ...]
Waiting = list[tuple[RoundBuilder, AssignmentState]]
LOST = (AssignmentPhase.EXPIRED, AssignmentPhase.FAILED, AssignmentPhase.REFUSED)
MEASURABLE = (RoundPhase.CLOSED, RoundPhase.EVALUATING)


def step_buffered(
    window: Window, event: RoundEvent
) -> tuple[tuple[RoundState, tuple[Effect, ...]], ...]:
    """Apply one event. Returns each round of the window with its effects, in the window's order."""
    builders = [RoundBuilder(each) for each in window]
    newest = builders[-1]
    if isinstance(event, Interrupted):
        _interrupt(builders, event.reason)
    elif newest.state.phase in ENDED:
        pass
    elif isinstance(event, Tick):
        _tick(builders, event)
    elif newest.state.phase is not RoundPhase.AGGREGATING:
        pass
    elif isinstance(event, Aggregated):
        _close_version(builders, event.now)
    elif _in_buffer(builders):
        _fail(builders, event.reason)
    else:  # every update of the buffer was refused: fill it again
        deadline_at = event.now + newest.state.policy.deadline_s
        newest.move(RoundPhase.COLLECTING, event.reason, deadline_at=deadline_at)
    return tuple((builder.state, tuple(builder.effects)) for builder in builders)


def _interrupt(builders: list[RoundBuilder], reason: str) -> None:
    """Stop every device. Reported updates wait for the round that replaces this one."""
    newest = builders[-1]
    aggregated = newest.state.phase is RoundPhase.EVALUATING
    for builder in builders:
        builder.revoke_active(reason)
    if newest.state.phase in ENDED:  # between two versions
        return
    for builder, item in _in_buffer(builders):
        builder.put(replace(item, buffered_in=None))
    newest.move(RoundPhase.CLOSED if aggregated else RoundPhase.FAILED, reason)


def _tick(builders: list[RoundBuilder], tick: Tick) -> None:
    newest, now = builders[-1], tick.now
    for builder in builders:
        expire_silent(builder, tick)
        reported = [
            item
            for item in builder.state.assignments
            if item.task is Task.EVALUATE and item.phase is AssignmentPhase.REPORTED
        ]
        for item in reported:
            builder.put(replace(item, phase=AssignmentPhase.FOLDED))
        if reported:
            builder.effects.append(EvaluationArrived())
    if newest.state.phase is RoundPhase.PLANNED:
        deadline_at = now + newest.state.policy.deadline_s
        newest.move(RoundPhase.COLLECTING, deadline_at=deadline_at)
    # Refuse updates that are too old for the buffer, and stop training that would be.
    limit = _buffering(builders).max_staleness
    for builder in builders:
        age = newest.state.number - builder.state.number
        if age > limit:
            reason = f"it started {age} versions ago; at most {limit} are allowed"
            _stop_training(builder, reason)
    if newest.state.phase is RoundPhase.COLLECTING:
        _close_collection(builders, now)
    elif newest.state.phase is RoundPhase.EVALUATING:
        _close_last_evaluation(builders, now)
    elif due(newest.state, now):
        limit_s = newest.state.policy.aggregation_s
        _fail(builders, f"no worker aggregated the updates within {limit_s:.0f} s")
    if newest.state.phase not in ENDED:
        _offer_work(builders, tick)


def _close_collection(builders: list[RoundBuilder], now: float) -> None:
    """Aggregate a full buffer; at the deadline, or when no device can train, one update will do."""
    newest = builders[-1]
    waiting = _waiting(builders)
    size = _buffering(builders).size
    late = due(newest.state, now)
    training = any(
        item.task is Task.TRAIN and item.phase in ACTIVE
        for builder in builders
        for item in builder.state.assignments
    )
    idle = not training and all(_exhausted(newest.state, device) for device in newest.state.members)
    if len(waiting) >= size or (waiting and (late or idle)):
        chosen = waiting[:size]
        for builder, item in chosen:
            builder.put(replace(item, buffered_in=newest.state.number))
        deadline_at = now + newest.state.policy.aggregation_s
        newest.move(RoundPhase.AGGREGATING, deadline_at=deadline_at)
        newest.effects.append(Aggregate(tuple(item.device for _, item in chosen)))
    elif late or idle:
        why = "by the deadline" if late else "and no other device can"
        text = f"no device delivered an update {why}"
        _fail(builders, with_reasons(text, newest.state, Task.TRAIN))


def _exhausted(version: RoundState, device: str) -> bool:
    """Whether a device has used up its attempts to train on this version."""
    lost = [item for item in train_attempts(version, device) if item.phase in LOST]
    return len(lost) >= version.policy.max_attempts or any(not item.retryable for item in lost)


def _offer_work(builders: list[RoundBuilder], tick: Tick) -> None:
    """Offer free devices the newest evaluation they owe, or else training on the newest model."""
    newest = builders[-1]
    active = [item for each in builders for item in each.state.assignments if item.phase in ACTIVE]
    busy = {item.device for item in active}
    places = _buffering(builders).concurrency - sum(item.task is Task.TRAIN for item in active)
    trainable = newest.state.members if newest.state.phase is RoundPhase.COLLECTING else ()
    measured = [
        builder
        for builder in builders
        if builder.state.evaluators and builder.state.phase in MEASURABLE
    ]
    for device in _in_turn(builders):
        if device in busy or device not in tick.online:
            continue
        if measured and device in pending_evaluators(measured[-1].state):
            version = measured[-1]
            former = latest_attempts(version.state, Task.EVALUATE).get(device)
            version.offer(device, Task.EVALUATE, former.attempt + 1 if former else 1, tick.now)
        elif places > 0 and device in trainable and not _exhausted(newest.state, device):
            attempts = len(train_attempts(newest.state, device))
            newest.offer(device, Task.TRAIN, attempts + 1, tick.now)
            places -= 1


def _in_turn(builders: list[RoundBuilder]) -> list[str]:
    """Every device that may be offered work, in random order.

    The order is derived anew for each version and each update that a device has delivered to it.
    """
    newest, buffering = builders[-1].state, _buffering(builders)
    devices = dict.fromkeys((*newest.members, *newest.evaluators))
    if buffering.concurrency >= len(newest.members):
        return list(devices)
    turns = {
        device: derive(
            buffering.seed, "turn", newest.number, device, len(train_attempts(newest, device))
        )
        for device in devices
    }
    return sorted(devices, key=lambda device: turns[device])


def pending_evaluators(version: RoundState) -> list[str]:
    """Devices that have not evaluated a version and still can."""
    newest = latest_attempts(version, Task.EVALUATE)
    lost = (AssignmentPhase.EXPIRED, AssignmentPhase.FAILED)
    return [
        device
        for device in version.evaluators
        if device not in newest
        or (newest[device].phase in lost and may_retry(version, newest[device]))
    ]


def _close_last_evaluation(builders: list[RoundBuilder], now: float) -> None:
    """End the job once every device has evaluated its last version, or at the deadline."""
    current = builders[-1]
    newest = latest_attempts(current.state, Task.EVALUATE)
    evaluating = any(item.phase in ACTIVE for item in newest.values())
    if (evaluating or pending_evaluators(current.state)) and not due(current.state, now):
        return
    for builder in builders:
        builder.revoke_active("the evaluation closed without it")
    reported = sum(item.phase in DELIVERED for item in newest.values())
    current.move(RoundPhase.CLOSED, missing_evaluations(current.state, reported))


def _close_version(builders: list[RoundBuilder], now: float) -> None:
    """Close the version whose model is stored. The last one is evaluated before the job ends."""
    newest = builders[-1]
    for builder, item in _in_buffer(builders):
        builder.put(replace(item, phase=AssignmentPhase.FOLDED))
    if not _buffering(builders).last:
        newest.move(RoundPhase.CLOSED)
        return
    for builder in builders:
        _stop_training(builder, "the final version was aggregated without it")
    if newest.state.evaluators:
        deadline_at = now + newest.state.policy.evaluation_limit_s
        newest.move(RoundPhase.EVALUATING, deadline_at=deadline_at)
        return
    for builder in builders:
        builder.revoke_active("the job is complete")
    newest.move(RoundPhase.CLOSED)


def _stop_training(builder: RoundBuilder, reason: str) -> None:
    """Revoke a round's training, and refuse those of its updates that are not folded."""
    for item in builder.state.assignments:
        if item.task is Task.TRAIN and item.phase in ACTIVE:
            builder.revoke(item, reason)
    _refuse(builder, reason)


def _fail(builders: list[RoundBuilder], reason: str) -> None:
    for builder in builders:
        builder.revoke_active("the round failed")
        _refuse(builder, "the round failed")
    builders[-1].move(RoundPhase.FAILED, reason)


def _refuse(builder: RoundBuilder, reason: str) -> None:
    """Refuse a round's updates that are not folded."""
    for item in unfolded_updates(builder.state):
        refused = replace(item, phase=AssignmentPhase.REFUSED, reason=reason, retryable=False)
        builder.put(replace(refused, buffered_in=None))


def _waiting(builders: list[RoundBuilder], buffered_in: int | None = None) -> Waiting:
    """Unfolded updates of one buffer, or of none; oldest model first, then device, then attempt."""
    return [
        (builder, item)
        for builder in builders
        for item in unfolded_updates(builder.state)
        if item.buffered_in == buffered_in
    ]


def _in_buffer(builders: list[RoundBuilder]) -> Waiting:
    return _waiting(builders, builders[-1].state.number)


def _buffering(builders: list[RoundBuilder]) -> Buffering:
    buffering = builders[-1].state.policy.buffering
    assert buffering is not None, "a synchronous round came to the buffered step function"
    return buffering
