"""Laws that an asynchronous job obeys under any sequence of events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.rounds.buffered import Window, step_buffered
from fedcore.rounds.queries import move_refusal, unfolded_updates, waiting_for_buffer
from fedcore.rounds.types import (
    ACTIVE,
    ENDED,
    Aggregate,
    Aggregated,
    AggregationFailed,
    AssignmentPhase,
    AssignmentState,
    Buffering,
    Ended,
    Interrupted,
    RoundEvent,
    RoundPhase,
    RoundPolicy,
    RoundState,
    Task,
    Tick,
)
from tests.fedcore.rounds.rounds import NOW

DEVICES = "abcd"
LAST = 4
REPORTED = AssignmentPhase.REPORTED
TARGETS = (AssignmentPhase.ACCEPTED, REPORTED, AssignmentPhase.FAILED, AssignmentPhase.REFUSED)
ACTIONS = st.one_of(
    st.tuples(st.just("tick"), st.floats(0, 30), st.frozensets(st.sampled_from(DEVICES))),
    st.tuples(st.just("tick"), st.floats(0, 3), st.just(frozenset(DEVICES))),
    st.tuples(st.just("device"), st.sampled_from(DEVICES), st.sampled_from(TARGETS), st.booleans()),
    *[st.tuples(st.just("device"), st.sampled_from(DEVICES), st.just(REPORTED), st.just(True))] * 3,
    *[st.tuples(st.just("aggregated"))] * 2,
    st.tuples(st.just("update refused"), st.sampled_from(DEVICES)),
    st.tuples(st.sampled_from(["aggregation failed", "interrupted", *["nothing"] * 8])),
)
RULES = st.builds(
    Buffering,
    size=st.integers(1, 3),
    concurrency=st.integers(1, 4),
    max_staleness=st.integers(0, 3),
    seed=st.integers(0, 3),
    last=st.just(False),
)


class World:
    """A job with a clock, version after version. Every event is checked against the laws."""

    def __init__(self, rules: Buffering, evaluate: bool) -> None:
        self.rules, self.evaluate, self.now = rules, evaluate, NOW
        self.rounds: list[RoundState] = []
        self.start()

    @property
    def current(self) -> RoundState:
        return self.rounds[-1]

    @property
    def over(self) -> bool:
        failed = self.current.phase is RoundPhase.FAILED
        return failed or (self.current.number == LAST and self.current.phase in ENDED)

    def start(self) -> None:
        number = len(self.rounds) + 1
        rules = replace(self.rules, last=number == LAST)
        policy = RoundPolicy(rules.size, 1, 60.0, 10.0, 2, aggregation_s=30, buffering=rules)
        evaluators = tuple(DEVICES) if self.evaluate else ()
        self.rounds.append(RoundState(number, tuple(DEVICES), evaluators, policy))
        self.send(Tick(self.now, frozenset(DEVICES)))

    def send(self, event: RoundEvent) -> None:
        window: Window = tuple(self.rounds)
        stepped = step_buffered(window, event)
        self.rounds = [after for after, _ in stepped]
        check_laws(window, stepped)
        if self.current.phase is RoundPhase.CLOSED and not self.over:
            self.start()

    def act(self, action: tuple[Any, ...]) -> None:
        kind = action[0]
        if kind == "tick":
            self.now += action[1]
            self.send(Tick(self.now, action[2]))
        elif kind == "device":
            self.device(*action[1:])
        elif kind == "aggregated":
            self.send(Aggregated(self.now))
        elif kind == "aggregation failed":
            self.send(AggregationFailed(self.now, "it would not"))
        elif kind == "update refused":
            self.refuse_update(action[1])
        elif kind == "interrupted":
            self.send(Interrupted(self.now, "the job was cancelled"))

    def device(self, device: str, target: AssignmentPhase, retryable: bool) -> None:
        """What ``transitions.move_assignment`` does to a row, and the tick after it."""
        for index, item in self.active(device):
            steps = (AssignmentPhase.ACCEPTED, target) if target is REPORTED else (target,)
            changed = item
            for phase in steps:
                if move_refusal(changed.phase, phase) == "":
                    may_retry = retryable and phase is not AssignmentPhase.REFUSED
                    until = self.now + 10
                    changed = replace(changed, phase=phase, retryable=may_retry, lease_until=until)
            self.put(index, item, changed)
        self.send(Tick(self.now, frozenset(DEVICES)))

    def active(self, device: str) -> list[tuple[int, AssignmentState]]:
        return [
            (index, item)
            for index, each in enumerate(self.rounds)
            for item in each.assignments
            if item.device == device and item.phase in ACTIVE
        ]

    def refuse_update(self, device: str) -> None:
        """What an aggregation worker does to an unusable update in the buffer."""
        if self.current.phase is RoundPhase.AGGREGATING:
            for index, each in enumerate(self.rounds):
                for item in unfolded_updates(each):
                    if item.device == device and item.buffered_in == self.current.number:
                        refused = replace(item, phase=AssignmentPhase.REFUSED, retryable=False)
                        self.put(index, item, refused)

    def put(self, index: int, old: AssignmentState, new: AssignmentState) -> None:
        items = tuple(new if item is old else item for item in self.rounds[index].assignments)
        self.rounds[index] = replace(self.rounds[index], assignments=items)


def check_laws(before: Window, stepped: tuple[tuple[RoundState, tuple[Any, ...]], ...]) -> None:
    after = [each for each, _ in stepped]
    current = after[-1]
    buffering = current.policy.buffering
    assert buffering is not None
    items = [(each, item) for each in after for item in each.assignments]
    keys = {(each.number, item.device, item.task, item.attempt) for each, item in items}
    assert len(keys) == len(items), "an attempt exists twice"
    active = [item for _, item in items if item.phase in ACTIVE]
    assert len({item.device for item in active}) == len(active), "a device has two tasks"
    assert sum(item.task is Task.TRAIN for item in active) <= buffering.concurrency
    for each, item in items:
        if item.buffered_in is not None:
            assert 0 <= item.buffered_in - each.number <= buffering.max_staleness
            assert item.phase is not AssignmentPhase.FOLDED or item.task is Task.TRAIN
    for number in range(1, current.number + 1):
        assert len(in_buffer(items, number)) <= buffering.size
    for old, (new, effects) in zip(before, stepped, strict=True):
        ends = [effect for effect in effects if isinstance(effect, Ended)]
        assert len(ends) == int(old.phase not in ENDED and new.phase in ENDED)
        assert old.phase not in ENDED or new.phase is old.phase
        for effect in effects:
            if isinstance(effect, Aggregate):
                marked = in_buffer(items, new.number)
                assert sorted(effect.devices) == sorted(item.device for item in marked)
    if current.phase is RoundPhase.FAILED or (buffering.last and current.phase in ENDED):
        assert not active, "a device works in vain"
    elif current.phase not in ENDED:
        assert current.deadline_at is not None, "a wait without a deadline"
        assert waiting_for_buffer(after, NOW, {})


def in_buffer(
    items: list[tuple[RoundState, AssignmentState]], number: int
) -> list[AssignmentState]:
    """Updates in the buffer of a version; one that a worker has refused is not in it any more."""
    refused = AssignmentPhase.REFUSED
    return [item for _, item in items if item.buffered_in == number and item.phase is not refused]


STORIES = st.lists(ACTIONS, max_size=60)


@settings(max_examples=200, deadline=None)
@given(RULES, st.booleans(), STORIES)
def test_laws_hold_until_the_end(
    rules: Buffering, evaluate: bool, story: list[tuple[Any, ...]]
) -> None:
    world = World(rules, evaluate)
    for action in story:
        if world.over:
            break
        world.act(action)
    # No device answers any more: every state has a deadline.
    for _ in range(3 * LAST):
        if not world.over:
            world.act(("tick", 61.0, frozenset()))
    assert world.over


@settings(max_examples=100, deadline=None)
@given(RULES, st.booleans(), STORIES)
def test_repeated_tick_changes_nothing(
    rules: Buffering, evaluate: bool, story: list[tuple[Any, ...]]
) -> None:
    world = World(rules, evaluate)
    for action in story:
        if world.over:
            return
        world.act(action)
    if world.over:
        return
    event = Tick(world.now, frozenset(DEVICES))
    once = tuple(each for each, _ in step_buffered(tuple(world.rounds), event))
    if once[-1].phase in ENDED:
        return
    assert step_buffered(once, event) == tuple((each, ()) for each in once)


@settings(max_examples=60, deadline=None)
@given(RULES, st.permutations(range(4)))
def test_folded_set_is_independent_of_arrival(rules: Buffering, order: list[int]) -> None:
    """Four updates that arrive before a tick fill the same buffer in the same order."""
    whole = replace(rules, concurrency=4, max_staleness=3)
    policy = RoundPolicy(whole.size, 1, 60.0, 10.0, 2, buffering=whole)
    parts = [AssignmentState(device, Task.TRAIN, 1, REPORTED) for device in DEVICES]
    shuffled = tuple(parts[index] for index in order)
    current = RoundState(3, tuple(DEVICES), (), policy, RoundPhase.COLLECTING, NOW + 60, shuffled)
    ((_, effects),) = step_buffered((current,), Tick(NOW, frozenset()))
    assert [effect for effect in effects if isinstance(effect, Aggregate)] == [
        Aggregate(tuple(DEVICES[: whole.size]))
    ]
