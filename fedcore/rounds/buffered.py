"""The step function of an asynchronous job: one buffer of updates, many models they started from.

FedBuff (Nguyen et al. 2022, arXiv 2106.06639): a round is one version of the model. It collects
until ``Buffering.size`` updates are in its buffer, whatever version they started from, and nobody
waits for it: a device that has reported gets new work on the newest model at once. FedAsync (Xie et
al. 2019, arXiv 1903.03934) is the buffer of one.

A ``Window`` is every round with something open, oldest first; the newest is the one that collects.
An assignment stays with the round whose base it trains from; ``buffered_in`` says who folds it.
Our choices: while a fold runs, who reports waits the moment for its outcome rather than start from
a model about to be old; a device evaluates the newest version that is due before it trains again,
so versions in between are measured by fewer devices; at the deadline a buffer is folded as full as
it is. ``tests/fedcore/rounds/test_buffered.py`` walks every arrow.
"""

from __future__ import annotations

from dataclasses import replace

from fedcore.rounds.queries import (
    failure_reasons,
    latest_attempts,
    may_retry,
    train_attempts,
    unfolded_updates,
)
from fedcore.rounds.round_builder import RoundBuilder, due, expire_silent
from fedcore.rounds.types import (
    ACTIVE,
    DELIVERED,
    ENDED,
    Aggregate,
    Aggregated,
    AggregationFailed,
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
    """Apply one event; each round of the window with its effects, in the window's order."""
    drafts = [RoundBuilder(each) for each in window]
    current = drafts[-1]
    if isinstance(event, Interrupted):
        _interrupt(drafts, event.reason)
    elif current.round.phase in ENDED:
        pass
    elif isinstance(event, AggregationFailed):
        _aggregation_failed(drafts, event)
    elif isinstance(event, Aggregated):
        _aggregated(drafts, event.now)
    else:
        _tick(drafts, event)
    return tuple((draft.round, tuple(draft.effects)) for draft in drafts)


def _tick(drafts: list[RoundBuilder], tick: Tick) -> None:
    current = drafts[-1]
    for draft in drafts:
        expire_silent(draft, tick)
        _take_evaluations(draft)
    if current.round.phase is RoundPhase.PLANNED:
        limit = tick.now + current.round.policy.deadline_s
        current.move(RoundPhase.COLLECTING, deadline_at=limit)
    _drop_stale(drafts)
    if current.round.phase is RoundPhase.COLLECTING:
        _close_collection(drafts, tick.now)
    elif current.round.phase is RoundPhase.EVALUATING:
        _close_evaluation(drafts, tick.now)
    elif due(current.round, tick.now):
        limit = current.round.policy.aggregation_s
        _fail(drafts, f"no worker aggregated the updates within {limit:.0f} s")
    if current.round.phase not in ENDED:
        _offer_work(drafts, tick)


def _take_evaluations(draft: RoundBuilder) -> None:
    reported = [
        item
        for item in draft.round.assignments
        if (item.task, item.phase) == (Task.EVALUATE, AssignmentPhase.REPORTED)
    ]
    for item in reported:
        draft.put(replace(item, phase=AssignmentPhase.FOLDED))
    if reported:
        draft.effects.append(EvaluationArrived())


def _drop_stale(drafts: list[RoundBuilder]) -> None:
    """Refuse what is too old for the buffer, and stop who trains in vain."""
    newest = drafts[-1].round.number
    limit = _buffering(drafts).max_staleness
    for draft in drafts:
        age = newest - draft.round.number
        if age <= limit:
            continue
        reason = f"it started {age} versions ago; at most {limit} are allowed"
        for item in draft.round.assignments:
            if item.task is Task.TRAIN and item.phase in ACTIVE:
                draft.revoke(item, reason)
        _refuse(draft, reason)


def _close_collection(drafts: list[RoundBuilder], now: float) -> None:
    current = drafts[-1]
    waiting = _waiting(drafts)
    size = _buffering(drafts).size
    over = due(current.round, now) or _nobody_left(drafts)
    if len(waiting) >= size or (waiting and over):
        chosen = waiting[:size]
        for draft, item in chosen:
            draft.put(replace(item, buffered_in=current.round.number))
        limit = now + current.round.policy.aggregation_s
        current.move(RoundPhase.AGGREGATING, deadline_at=limit)
        current.effects.append(Aggregate(tuple(item.device for _, item in chosen)))
    elif over:
        why = "by the deadline" if due(current.round, now) else "and nobody is left who could"
        reasons = failure_reasons(current.round, Task.TRAIN)
        _fail(drafts, f"no device delivered an update {why}{': ' + reasons if reasons else ''}")


def _nobody_left(drafts: list[RoundBuilder]) -> bool:
    """Nobody trains, and nobody may be asked once more for this version."""
    busy = any(
        item.task is Task.TRAIN and item.phase in ACTIVE
        for draft in drafts
        for item in draft.round.assignments
    )
    current = drafts[-1].round
    return not busy and all(_spent(current, device) for device in current.members)


def _spent(current: RoundState, device: str) -> bool:
    """Whether a device is not to be asked again for this version."""
    lost = [item for item in train_attempts(current, device) if item.phase in LOST]
    return len(lost) >= current.policy.max_attempts or any(not item.retryable for item in lost)


def _offer_work(drafts: list[RoundBuilder], tick: Tick) -> None:
    """Free devices evaluate the newest version they owe, or else train on the newest model."""
    current = drafts[-1]
    active = [item for d in drafts for item in d.round.assignments if item.phase in ACTIVE]
    busy = {item.device for item in active}
    places = _buffering(drafts).concurrency - sum(item.task is Task.TRAIN for item in active)
    version = next((d for d in reversed(drafts) if _to_measure(d.round)), None)
    for device in _in_turn(drafts):
        if device in busy or device not in tick.online:
            continue
        if version is not None and device in pending_evaluators(version.round):
            attempt = latest_attempts(version.round, Task.EVALUATE).get(device)
            number = attempt.attempt + 1 if attempt else 1
            version.offer(device, Task.EVALUATE, number, tick.now)
        elif places > 0 and _may_train(current.round, device):
            attempts = len(train_attempts(current.round, device))
            current.offer(device, Task.TRAIN, attempts + 1, tick.now)
            places -= 1


def _may_train(current: RoundState, device: str) -> bool:
    collecting = current.phase is RoundPhase.COLLECTING
    return collecting and device in current.members and not _spent(current, device)


def _in_turn(drafts: list[RoundBuilder]) -> list[str]:
    """Everybody who may be asked, in an order drawn anew for each version and delivery."""
    current, buffering = drafts[-1].round, _buffering(drafts)
    everybody = dict.fromkeys((*current.members, *current.evaluators))
    if buffering.concurrency >= len(current.members):
        return list(everybody)
    turns = {
        device: derive(
            buffering.seed, "turn", current.number, device, len(train_attempts(current, device))
        )
        for device in everybody
    }
    return sorted(everybody, key=lambda device: turns[device])


def _to_measure(version: RoundState) -> bool:
    return bool(version.evaluators) and version.phase in MEASURABLE


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


def _close_evaluation(drafts: list[RoundBuilder], now: float) -> None:
    """The last version closes the job when everybody has evaluated it, or at its deadline."""
    current = drafts[-1]
    newest = latest_attempts(current.round, Task.EVALUATE)
    evaluating = any(item.phase in ACTIVE for item in newest.values())
    if (evaluating or pending_evaluators(current.round)) and not due(current.round, now):
        return
    for draft in drafts:
        draft.revoke_active("the evaluation closed without it")
    done = sum(item.phase in DELIVERED for item in newest.values())
    missing = len(current.round.evaluators) - done
    current.move(RoundPhase.CLOSED, f"{missing} evaluations are missing" if missing else "")


def _aggregated(drafts: list[RoundBuilder], now: float) -> None:
    current = drafts[-1]
    if current.round.phase is not RoundPhase.AGGREGATING:
        return
    for draft, item in _in_buffer(drafts):
        draft.put(replace(item, phase=AssignmentPhase.FOLDED))
    if not _buffering(drafts).last:
        current.move(RoundPhase.CLOSED)
        return
    for draft in drafts:
        for item in draft.round.assignments:
            if item.task is Task.TRAIN and item.phase in ACTIVE:
                draft.revoke(item, "the last version was made without it")
        _refuse(draft, "the last version was made without it")
    if current.round.evaluators:
        limit = now + current.round.policy.evaluation_limit_s
        current.move(RoundPhase.EVALUATING, deadline_at=limit)
        return
    for draft in drafts:
        draft.revoke_active("the job is complete")
    current.move(RoundPhase.CLOSED)


def _aggregation_failed(drafts: list[RoundBuilder], event: AggregationFailed) -> None:
    """A buffer without a sound update is filled again; any other fault ends the round."""
    current = drafts[-1]
    if current.round.phase is not RoundPhase.AGGREGATING:
        return
    if _in_buffer(drafts):
        _fail(drafts, event.reason)
        return
    limit = event.now + current.round.policy.deadline_s
    current.move(RoundPhase.COLLECTING, event.reason, deadline_at=limit)


def _interrupt(drafts: list[RoundBuilder], reason: str) -> None:
    """Everybody stops; what was reported is kept for the round that takes this one's place."""
    current = drafts[-1]
    aggregated = current.round.phase is RoundPhase.EVALUATING
    for draft in drafts:
        draft.revoke_active(reason)
    if current.round.phase in ENDED:  # between two versions
        return
    for draft, item in _in_buffer(drafts):
        draft.put(replace(item, buffered_in=None))
    current.move(RoundPhase.CLOSED if aggregated else RoundPhase.FAILED, reason)


def _fail(drafts: list[RoundBuilder], reason: str) -> None:
    for draft in drafts:
        draft.revoke_active("the round failed")
        _refuse(draft, "the round failed")
    drafts[-1].move(RoundPhase.FAILED, reason)


def _refuse(draft: RoundBuilder, reason: str) -> None:
    """Give up the updates of a round that were not folded."""
    for item in unfolded_updates(draft.round):
        refused = replace(item, phase=AssignmentPhase.REFUSED, reason=reason, retryable=False)
        draft.put(replace(refused, buffered_in=None))


def _waiting(drafts: list[RoundBuilder], buffered_in: int | None = None) -> Waiting:
    """Updates of no buffer yet, or of one: oldest model first, then by device, then by attempt."""
    return [
        (draft, item)
        for draft in drafts
        for item in unfolded_updates(draft.round)
        if item.buffered_in == buffered_in
    ]


def _in_buffer(drafts: list[RoundBuilder]) -> Waiting:
    return _waiting(drafts, drafts[-1].round.number)


def _buffering(drafts: list[RoundBuilder]) -> Buffering:
    buffering = drafts[-1].round.policy.buffering
    assert buffering is not None, "a synchronous round came to the buffered machine"
    return buffering
