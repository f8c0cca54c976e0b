"""Laws that a round obeys under any sequence of events."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.rounds.clusters import leaf_updates, pending_heads, server_inputs
from fedcore.rounds.queries import move_refusal, tally, waiting_for
from fedcore.rounds.synchronous import step
from fedcore.rounds.types import (
    ACTIVE,
    DELIVERED,
    ENDED,
    Aggregate,
    Aggregated,
    AggregationFailed,
    AssignmentPhase,
    AssignmentState,
    Effect,
    Ended,
    Interrupted,
    Offer,
    Revoke,
    RoundEvent,
    RoundPhase,
    RoundPolicy,
    RoundState,
    Task,
    Tick,
)
from fedcore.topology import clusters
from tests.fedcore.rounds.rounds import NOW, TRAIN
from tests.fedcore.trees import forests

# Time passes, devices move their assignments, workers answer.
DEVICES = "abcd"
TARGETS = (
    AssignmentPhase.ACCEPTED,
    AssignmentPhase.TRAINING,
    AssignmentPhase.UPLOADING,
    AssignmentPhase.REPORTED,
    AssignmentPhase.FAILED,
    AssignmentPhase.REFUSED,
)
ACTIONS = st.one_of(
    st.tuples(
        st.just("tick"),
        st.floats(0, 40),
        st.frozensets(st.sampled_from(DEVICES)),
    ),
    st.tuples(st.just("tick"), st.floats(0, 5), st.just(frozenset(DEVICES))),
    st.tuples(st.just("device"), st.sampled_from(DEVICES), st.sampled_from(TARGETS), st.booleans()),
    st.tuples(st.just("device"), st.sampled_from(DEVICES), st.just(TARGETS[0]), st.just(True)),
    st.tuples(st.just("device"), st.sampled_from(DEVICES), st.just(TARGETS[3]), st.just(True)),
    st.tuples(st.just("aggregated")),
    st.tuples(st.just("update refused"), st.sampled_from(DEVICES)),
    st.tuples(st.just("aggregation failed")),
    st.tuples(st.sampled_from(["interrupted", "nothing", "nothing", "nothing"])),
)


@st.composite
def new_rounds(draw: st.DrawFn) -> RoundState:
    members = tuple(draw(st.lists(st.sampled_from(DEVICES), min_size=1, unique=True)))
    evaluators = tuple(draw(st.lists(st.sampled_from(DEVICES), unique=True)))
    target = draw(st.integers(1, len(members)))
    policy = RoundPolicy(
        target, draw(st.integers(1, target)), 60.0, 10.0, draw(st.integers(1, 3)), aggregation_s=30
    )
    number = draw(st.integers(0, 2))
    tree = clusters(draw(forests(tuple(DEVICES))) if number and draw(st.booleans()) else {})
    return RoundState(number, members if number else (), evaluators, policy, clusters=tree)


class World:
    """A round with a clock. Every event goes through ``send``, which checks the laws."""

    def __init__(self, start: RoundState) -> None:
        self.round = start
        self.now = NOW
        self.ended = 0

    def send(self, event: RoundEvent) -> None:
        before = self.round
        self.round, effects = step(before, event)
        check_laws(before, self.round, effects)
        self.ended += sum(isinstance(effect, Ended) for effect in effects)

    def tick(self, seconds: float, online: frozenset[str]) -> None:
        self.now += seconds
        self.send(Tick(self.now, online))

    def device(self, device: str, target: AssignmentPhase, retryable: bool) -> None:
        """What ``webapp.jobs.lifecycle.transitions.move_assignment`` does to a row."""
        for item in self.round.assignments:
            if item.device == device and move_refusal(item.phase, target) == "":
                changed = replace(
                    item,
                    phase=target,
                    retryable=retryable and target is not AssignmentPhase.REFUSED,
                    lease_until=self.now + 10,
                )
                self.put(item, changed)

    def refuse_update(self, device: str) -> None:
        """What an aggregation worker does to an unusable update."""
        for item in server_inputs(self.round):
            if (item.device, item.phase) == (device, AssignmentPhase.REPORTED):
                self.put(item, replace(item, phase=AssignmentPhase.REFUSED, retryable=False))

    def put(self, old: AssignmentState, new: AssignmentState) -> None:
        items = tuple(new if item is old else item for item in self.round.assignments)
        self.round = replace(self.round, assignments=items)

    def act(self, action: tuple[Any, ...]) -> None:
        kind = action[0]
        if kind == "tick":
            self.tick(*action[1:])
        elif kind == "device":
            self.device(*action[1:])
        elif kind == "aggregated":
            self.send(Aggregated(self.now))
        elif kind == "aggregation failed":
            self.send(AggregationFailed(self.now, "it would not"))
        elif kind == "update refused" and self.round.phase is RoundPhase.AGGREGATING:
            self.refuse_update(action[1])
        elif kind == "interrupted":
            self.send(Interrupted(self.now, "the job was cancelled"))


def check_laws(before: RoundState, after: RoundState, effects: tuple[Effect, ...]) -> None:
    items = {(item.device, item.task, item.attempt): item for item in after.assignments}
    assert len(items) == len(after.assignments), "an attempt exists twice"
    for effect in effects:
        if isinstance(effect, Offer):
            assert items[effect.device, effect.task, effect.attempt].phase.value == "offered"
        elif isinstance(effect, Revoke):
            assert items[effect.device, effect.task, effect.attempt].phase.value == "expired"
        elif isinstance(effect, Aggregate):
            assert len(effect.devices) >= after.policy.quorum
            assert list(effect.devices) == tally(after, TRAIN)[0]
            assert not any(item.phase in ACTIVE for item in after.assignments)
    check_tree(after)
    for task in Task:
        eligible = devices_for(after, task)
        for device in DEVICES:
            attempts = [
                item for item in after.assignments if (item.device, item.task) == (device, task)
            ]
            assert device in eligible or not attempts
            assert len(attempts) <= after.policy.max_attempts
            assert [item.attempt for item in sorted(attempts, key=lambda i: i.attempt)] == list(
                range(1, len(attempts) + 1)
            )
            assert sum(item.phase in ACTIVE for item in attempts) <= 1
            delivered = [item for item in attempts if item.phase in DELIVERED]
            assert len(delivered) <= 1, "two results for one task"
    ends = [effect for effect in effects if isinstance(effect, Ended)]
    assert len(ends) == int(before.phase not in ENDED and after.phase in ENDED)
    if before.phase in ENDED:
        assert after is before
        assert not effects
    if after.phase in ENDED:
        assert not any(item.phase in ACTIVE for item in after.assignments)
        assert after.phase is RoundPhase.CLOSED or after.reason
    elif after.phase is not RoundPhase.PLANNED:
        assert after.deadline_at is not None, "a wait without a deadline"
        assert waiting_for(after, NOW, {})


def check_tree(after: RoundState) -> None:
    """Each delivered update is counted once: by itself, or within one fold."""
    delivered = [(i.device, i.attempt) for i in after.assignments if trained(i)]
    leaves = [leaf for item in server_inputs(after) for leaf in leaf_updates(after, item)]
    assert sorted((leaf.device, leaf.attempt) for leaf in leaves) == sorted(delivered)
    if after.phase is RoundPhase.FOLDING:
        assert pending_heads(after)


def trained(item: AssignmentState) -> bool:
    return item.task is TRAIN and item.phase in DELIVERED


def devices_for(after: RoundState, task: Task) -> tuple[str, ...]:
    if task is Task.FOLD:
        return tuple(cluster.head for cluster in after.clusters)
    return after.members if task is TRAIN else after.evaluators


@settings(max_examples=300, deadline=None)
@given(new_rounds(), st.lists(ACTIONS, max_size=40))
def test_laws_hold_until_the_end(start: RoundState, story: list[tuple[Any, ...]]) -> None:
    world = World(start)
    for action in story:
        world.act(action)
    if world.round.phase is RoundPhase.PLANNED:
        world.tick(0, frozenset())
    # No device answers any more: collection, folds and evaluation each have a deadline.
    for limit in (60.0, 60.0, 30.0, 60.0):
        world.tick(limit + 1, frozenset(DEVICES))
    assert world.round.phase in ENDED
    assert world.ended == 1


@settings(max_examples=200, deadline=None)
@given(new_rounds(), st.lists(ACTIONS, max_size=25))
def test_repeated_tick_changes_nothing(start: RoundState, story: list[tuple[Any, ...]]) -> None:
    world = World(start)
    world.tick(0, frozenset(DEVICES))
    for action in story:
        world.act(action)
    event = Tick(world.now, frozenset(DEVICES))
    once, _ = step(world.round, event)
    assert step(once, event) == (once, ())


OUTCOMES = st.sampled_from(
    [
        (AssignmentPhase.REPORTED, True),
        (AssignmentPhase.FAILED, False),
        (AssignmentPhase.REFUSED, False),
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OUTCOMES, min_size=1, max_size=4), st.integers(1, 4))
def test_outcome_is_independent_of_answer_order(
    outcomes: list[tuple[AssignmentPhase, bool]], quorum: int
) -> None:
    members = tuple(DEVICES[: len(outcomes)])
    policy = RoundPolicy(len(members), min(quorum, len(members)), 60.0, 10.0, 3)
    ends = set()
    for order in permutations(range(len(members))):
        world = World(RoundState(1, members, members, policy))
        world.tick(0, frozenset(DEVICES))
        last: tuple[Effect, ...] = ()
        for index in order:
            world.device(members[index], AssignmentPhase.ACCEPTED, True)
            world.device(members[index], *outcomes[index])
            world.round, effects = step(world.round, Tick(world.now, frozenset(DEVICES)))
            last = effects or last
        ends.add((world.round.phase, world.round.reason, last))
    assert len(ends) == 1
