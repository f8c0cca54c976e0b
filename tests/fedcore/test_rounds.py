"""Every arrow of a round, and what must hold whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.rounds import (
    ACTIVE,
    DELIVERED,
    ENDED,
    HELD,
    Aggregate,
    Aggregated,
    AggregationFailed,
    Assignment,
    AssignmentPhase,
    Effect,
    Ended,
    Event,
    Interrupted,
    Offer,
    Policy,
    Revoke,
    Round,
    RoundPhase,
    Task,
    Tick,
    failure_reasons,
    latest,
    move_refusal,
    step,
    tally,
    waiting_for,
)
from fedcore.rounds.states import DEVICE_MOVES

TRAIN, EVALUATE = Task.TRAIN, Task.EVALUATE
NOW, DEADLINE, LEASE = 1000.0, 100.0, 10.0
POLICY = Policy(
    target=2, quorum=1, deadline_s=DEADLINE, lease_s=LEASE, max_attempts=2, aggregation_s=50.0
)
EVERYBODY = frozenset("abc")


def part(device: str, phase: str, attempt: int = 1, **changes: Any) -> Assignment:
    values = {"task": TRAIN, "lease_until": NOW + LEASE, **changes}
    return Assignment(device, attempt=attempt, phase=AssignmentPhase(phase), **values)


def scored(device: str, phase: str, attempt: int = 1, **changes: Any) -> Assignment:
    return part(device, phase, attempt, task=EVALUATE, **changes)


def a_round(phase: str, *parts: Assignment, number: int = 1, **changes: Any) -> Round:
    values: dict[str, Any] = {
        "members": ("a", "b") if number else (),
        "evaluators": ("a", "b"),
        "policy": POLICY,
        "deadline_at": None if phase == "planned" else NOW + DEADLINE,
        **changes,
    }
    return Round(number, phase=RoundPhase(phase), assignments=parts, **values)


def tick(later: float = 0.0, online: frozenset[str] = EVERYBODY) -> Tick:
    return Tick(NOW + later, online)


DONE, BROKEN = Aggregated(NOW), AggregationFailed(NOW, "no space")
STOP = Interrupted(NOW, "the job was paused")
DUE = DEADLINE + 1
SILENT = {"lease_until": NOW - 1}


@dataclass(frozen=True)
class Arrow:
    """``effects`` in short: 'offer a', 'revoke a', 'aggregate a b', 'closed', 'failed'."""

    before: Round
    event: Event
    after: str
    effects: tuple[str, ...] = ()
    reason: str = ""


ARROWS = {
    "a planned round is offered to its members": Arrow(
        a_round("planned"), tick(), "broadcasting", ("offer a", "offer b")
    ),
    "round 0 only evaluates": Arrow(
        a_round("planned", number=0), tick(), "evaluating", ("offer a", "offer b")
    ),
    "a planned round can be stopped": Arrow(
        a_round("planned"), STOP, "failed", ("failed",), "the job was paused"
    ),
    "nothing was aggregated before it began": Arrow(a_round("planned"), DONE, "planned"),
    "nothing failed to aggregate before it began": Arrow(a_round("planned"), BROKEN, "planned"),
    "nobody has taken the offer yet": Arrow(
        a_round("broadcasting", part("a", "offered"), part("b", "offered")),
        tick(),
        "broadcasting",
    ),
    "the first acceptance starts the collection": Arrow(
        a_round("broadcasting", part("a", "accepted"), part("b", "offered")), tick(), "collecting"
    ),
    "a refusal starts the collection too": Arrow(
        a_round("broadcasting", part("a", "refused"), part("b", "offered")), tick(), "collecting"
    ),
    "everything may come at once": Arrow(
        a_round("broadcasting", part("a", "reported"), part("b", "reported")),
        tick(),
        "aggregating",
        ("aggregate a b",),
    ),
    "offers that nobody takes end the round at its deadline": Arrow(
        a_round("broadcasting", part("a", "offered"), part("b", "offered")),
        tick(DUE),
        "failed",
        ("revoke a", "revoke b", "failed"),
        "0 of 1 needed devices reported by the deadline",
    ),
    "the quorum waits for the others": Arrow(
        a_round("collecting", part("a", "reported"), part("b", "training")), tick(), "collecting"
    ),
    "the target closes the collection, and stops who is extra": Arrow(
        a_round(
            "collecting",
            part("a", "reported"),
            part("b", "training"),
            part("c", "reported"),
            members=("a", "b", "c"),
        ),
        tick(),
        "aggregating",
        ("revoke b", "aggregate a c"),
    ),
    "the quorum suffices at the deadline": Arrow(
        a_round("collecting", part("a", "reported"), part("b", "training", lease_until=NOW + 1000)),
        tick(DUE),
        "aggregating",
        ("revoke b", "aggregate a"),
    ),
    "the quorum suffices when nobody else can": Arrow(
        a_round("collecting", part("a", "reported"), part("b", "refused", reason="no data")),
        tick(),
        "aggregating",
        ("aggregate a",),
    ),
    "too few at the deadline fail the round": Arrow(
        a_round("collecting", part("a", "training", lease_until=NOW + 1000), part("b", "offered")),
        tick(DUE),
        "failed",
        ("revoke a", "revoke b", "failed"),
        "0 of 1 needed devices reported by the deadline",
    ),
    "too few fail the round at once when nobody is left": Arrow(
        a_round(
            "collecting",
            part("a", "refused", reason="no dataset 'law'"),
            part("b", "failed", retryable=False, reason="loss is NaN"),
        ),
        tick(),
        "failed",
        ("failed",),
        "nobody is left who could: a: no dataset 'law'; b: loss is NaN",
    ),
    "a silent device loses its lease and is asked again": Arrow(
        a_round("collecting", part("a", "training", **SILENT), part("b", "training")),
        tick(),
        "collecting",
        ("revoke a", "offer a"),
    ),
    "a silent device that is away is asked when it is back": Arrow(
        a_round("collecting", part("a", "training", **SILENT), part("b", "training")),
        tick(online=frozenset("b")),
        "collecting",
        ("revoke a",),
    ),
    "a device that came back is asked again": Arrow(
        a_round("collecting", part("a", "expired"), part("b", "training")),
        tick(),
        "collecting",
        ("offer a",),
    ),
    "a device is asked max_attempts times": Arrow(
        a_round("collecting", part("a", "expired"), part("a", "expired", 2), part("b", "training")),
        tick(),
        "collecting",
    ),
    "a failure that may pass is tried again": Arrow(
        a_round("collecting", part("a", "failed"), part("b", "training")),
        tick(),
        "collecting",
        ("offer a",),
    ),
    "a failure for good is not": Arrow(
        a_round("collecting", part("a", "failed", retryable=False), part("b", "training")),
        tick(),
        "collecting",
    ),
    "a refusal is for good": Arrow(
        a_round("collecting", part("a", "refused"), part("b", "training")), tick(), "collecting"
    ),
    "an offer has no lease to lose": Arrow(
        a_round("collecting", part("a", "offered", **SILENT), part("b", "training")),
        tick(),
        "collecting",
    ),
    "a pause gives the collection up": Arrow(
        a_round("collecting", part("a", "reported"), part("b", "training")),
        STOP,
        "failed",
        ("revoke b", "failed"),
        "the job was paused",
    ),
    "no aggregation was asked for": Arrow(
        a_round("collecting", part("a", "training")), DONE, "collecting"
    ),
    "no aggregation could fail": Arrow(
        a_round("collecting", part("a", "training")), BROKEN, "collecting"
    ),
    "the fold has its time": Arrow(
        a_round("aggregating", part("a", "reported")), tick(), "aggregating"
    ),
    "but not for ever": Arrow(
        a_round("aggregating", part("a", "reported")),
        tick(DUE),
        "failed",
        ("failed",),
        "no worker aggregated the updates within 50 s",
    ),
    "the new model is evaluated": Arrow(
        a_round("aggregating", part("a", "reported"), part("b", "reported")),
        DONE,
        "evaluating",
        ("offer a", "offer b"),
    ),
    "a fold that cannot be done fails the round": Arrow(
        a_round("aggregating", part("a", "reported")), BROKEN, "failed", ("failed",), "no space"
    ),
    "a pause gives the fold up": Arrow(
        a_round("aggregating", part("a", "reported")), STOP, "failed", ("failed",)
    ),
    "evaluations are waited for": Arrow(
        a_round("evaluating", scored("a", "reported"), scored("b", "training")),
        tick(),
        "evaluating",
    ),
    "all evaluations close the round": Arrow(
        a_round("evaluating", scored("a", "reported"), scored("b", "reported")),
        tick(),
        "closed",
        ("closed",),
    ),
    "a missing evaluation closes it at the deadline": Arrow(
        a_round("evaluating", scored("a", "reported"), scored("b", "offered")),
        tick(DUE),
        "closed",
        ("revoke b", "closed"),
        "1 evaluations are missing",
    ),
    "a model nobody evaluated is a model all the same": Arrow(
        a_round("evaluating", scored("a", "refused"), scored("b", "refused")),
        tick(),
        "closed",
        ("closed",),
        "2 evaluations are missing",
    ),
    "a start that nobody can evaluate fails": Arrow(
        a_round(
            "evaluating",
            scored("a", "refused", reason="no dataset 'law'"),
            scored("b", "offered"),
            number=0,
        ),
        tick(DUE),
        "failed",
        ("revoke b", "failed"),
        "no device could evaluate the model: a: no dataset 'law'",
    ),
    "a start that somebody evaluated closes": Arrow(
        a_round("evaluating", scored("a", "reported"), scored("b", "refused"), number=0),
        tick(),
        "closed",
        ("closed",),
    ),
    "a silent evaluator is asked again": Arrow(
        a_round("evaluating", scored("a", "training", **SILENT), scored("b", "reported")),
        tick(),
        "evaluating",
        ("revoke a", "offer a"),
    ),
    "what was aggregated survives a pause": Arrow(
        a_round("evaluating", scored("a", "reported"), scored("b", "training")),
        STOP,
        "closed",
        ("revoke b", "closed"),
        "the job was paused",
    ),
    "a pause gives the start up": Arrow(
        a_round("evaluating", scored("a", "training"), number=0),
        STOP,
        "failed",
        ("revoke a", "failed"),
    ),
    "aggregated twice is aggregated once": Arrow(
        a_round("evaluating", scored("a", "training")), DONE, "evaluating"
    ),
    "too late to fail": Arrow(a_round("evaluating", scored("a", "training")), BROKEN, "evaluating"),
    **{
        f"{phase} stays {phase} after {type(event).__name__}": Arrow(
            a_round(phase, part("a", "training", **SILENT)), event, phase
        )
        for phase in ("closed", "failed")
        for event in (tick(DUE), DONE, BROKEN, STOP)
    },
}


def in_short(effect: Effect) -> str:
    if isinstance(effect, Ended):
        return "failed" if effect.failed else "closed"
    if isinstance(effect, Aggregate):
        return f"aggregate {' '.join(effect.devices)}"
    return f"{type(effect).__name__.lower()} {effect.device}"


@pytest.mark.parametrize("arrow", ARROWS.values(), ids=list(ARROWS))
def test_arrow(arrow: Arrow) -> None:
    after, effects = step(arrow.before, arrow.event)
    assert after.phase.value == arrow.after
    assert tuple(in_short(effect) for effect in effects) == arrow.effects
    assert arrow.reason in after.reason
    if effects and isinstance(effects[-1], Ended):
        assert effects[-1].reason == after.reason


def test_every_phase_has_an_arrow_for_every_kind_of_event() -> None:
    walked = {(arrow.before.phase, type(arrow.event)) for arrow in ARROWS.values()}
    kinds = (Tick, Aggregated, AggregationFailed, Interrupted)
    due = {(phase, kind) for phase in RoundPhase for kind in kinds}
    # Broadcasting differs from collecting in nothing but its name.
    due -= {(RoundPhase.BROADCASTING, kind) for kind in kinds[1:]}
    assert due <= walked


def test_an_offer_carries_a_lease_and_the_round_a_deadline() -> None:
    after, _ = step(a_round("planned"), tick(5))
    assert after.deadline_at == NOW + 5 + DEADLINE
    assert {item.lease_until for item in after.assignments} == {NOW + 5 + LEASE}
    collected, _ = step(a_round("collecting", part("a", "reported"), part("b", "refused")), tick(7))
    assert collected.deadline_at == NOW + 7 + POLICY.aggregation_s
    evaluating, _ = step(collected, Aggregated(NOW + 9))
    assert evaluating.deadline_at == NOW + 9 + DEADLINE
    assert {item.phase for item in evaluating.assignments if item.task is TRAIN} == {
        AssignmentPhase.FOLDED,
        AssignmentPhase.REFUSED,
    }


def test_a_second_attempt_counts_and_the_first_stays_on_record() -> None:
    before = a_round("collecting", part("a", "training", **SILENT), part("b", "training"))
    after, effects = step(before, tick())
    assert effects[1] == Offer("a", TRAIN, 2)
    mine = [(item.attempt, item.phase.value) for item in after.assignments if item.device == "a"]
    assert sorted(mine) == [(1, "expired"), (2, "offered")]
    assert "silent for longer than its lease of 10 s" in after.assignments[-2].reason


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
    for phase in HELD:
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
def test_waiting_for_reads_like_a_sentence(current: Round, sentence: str) -> None:
    assert waiting_for(current, NOW, SEEN) == sentence


def test_a_device_that_may_still_be_asked_again_is_waited_for() -> None:
    current = a_round("collecting", part("a", "expired"), part("b", "reported"))
    assert tally(current, TRAIN) == (["b"], ["a"])
    assert "1 of 2 to train: a" in waiting_for(current, NOW, {})
    lost = a_round("collecting", part("a", "expired"), part("a", "failed", 2, reason="no disk"))
    assert tally(lost, TRAIN) == ([], [])
    assert failure_reasons(lost, TRAIN) == "a: no disk"
    assert latest(lost, TRAIN)["a"].attempt == 2


# What happens to a round: time passes, devices act as they are allowed to, workers answer.
DEVICES = "abcd"
WANTED = (
    AssignmentPhase.ACCEPTED,
    AssignmentPhase.TRAINING,
    AssignmentPhase.UPLOADING,
    AssignmentPhase.REPORTED,
    AssignmentPhase.FAILED,
    AssignmentPhase.REFUSED,
)
HAPPENINGS = st.one_of(
    st.tuples(
        st.just("tick"),
        st.floats(0, 40),
        st.frozensets(st.sampled_from(DEVICES)),
    ),
    st.tuples(st.just("tick"), st.floats(0, 5), st.just(frozenset(DEVICES))),
    st.tuples(st.just("device"), st.sampled_from(DEVICES), st.sampled_from(WANTED), st.booleans()),
    st.tuples(st.just("device"), st.sampled_from(DEVICES), st.just(WANTED[0]), st.just(True)),
    st.tuples(st.just("device"), st.sampled_from(DEVICES), st.just(WANTED[3]), st.just(True)),
    st.tuples(st.just("aggregated")),
    st.tuples(st.just("update refused"), st.sampled_from(DEVICES)),
    st.tuples(st.just("aggregation failed")),
    st.tuples(st.sampled_from(["interrupted", "nothing", "nothing", "nothing"])),
)


@st.composite
def new_rounds(draw: st.DrawFn) -> Round:
    members = tuple(draw(st.lists(st.sampled_from(DEVICES), min_size=1, unique=True)))
    evaluators = tuple(draw(st.lists(st.sampled_from(DEVICES), min_size=1, unique=True)))
    target = draw(st.integers(1, len(members)))
    policy = Policy(
        target, draw(st.integers(1, target)), 60.0, 10.0, draw(st.integers(1, 3)), aggregation_s=30
    )
    number = draw(st.integers(0, 2))
    return Round(number, members if number else (), evaluators, policy)


class World:
    """A round with its clock; every event goes through ``send``, which checks the laws."""

    def __init__(self, start: Round) -> None:
        self.round = start
        self.now = NOW
        self.ended = 0

    def send(self, event: Event) -> None:
        before = self.round
        self.round, effects = step(before, event)
        check_laws(before, self.round, effects)
        self.ended += sum(isinstance(effect, Ended) for effect in effects)

    def tick(self, seconds: float, online: frozenset[str]) -> None:
        self.now += seconds
        self.send(Tick(self.now, online))

    def device(self, device: str, wanted: AssignmentPhase, retryable: bool) -> None:
        """What ``webapp.jobs.transitions.move_assignment`` does to a row."""
        for item in self.round.assignments:
            if item.device == device and move_refusal(item.phase, wanted) == "":
                changed = replace(
                    item,
                    phase=wanted,
                    retryable=retryable and wanted is not AssignmentPhase.REFUSED,
                    lease_until=self.now + 10,
                )
                self.put(item, changed)

    def refuse_update(self, device: str) -> None:
        """What an aggregation worker does to an update that is not sound."""
        for item in self.round.assignments:
            if (item.device, item.task, item.phase) == (device, TRAIN, AssignmentPhase.REPORTED):
                self.put(item, replace(item, phase=AssignmentPhase.REFUSED, retryable=False))

    def put(self, old: Assignment, new: Assignment) -> None:
        items = tuple(new if item is old else item for item in self.round.assignments)
        self.round = replace(self.round, assignments=items)

    def happen(self, what: tuple[Any, ...]) -> None:
        kind = what[0]
        if kind == "tick":
            self.tick(*what[1:])
        elif kind == "device":
            self.device(*what[1:])
        elif kind == "aggregated":
            self.send(Aggregated(self.now))
        elif kind == "aggregation failed":
            self.send(AggregationFailed(self.now, "it would not"))
        elif kind == "update refused" and self.round.phase is RoundPhase.AGGREGATING:
            self.refuse_update(what[1])
        elif kind == "interrupted":
            self.send(Interrupted(self.now, "the job was cancelled"))


def check_laws(before: Round, after: Round, effects: tuple[Effect, ...]) -> None:
    held = {(item.device, item.task, item.attempt): item for item in after.assignments}
    assert len(held) == len(after.assignments), "an attempt exists twice"
    for effect in effects:
        if isinstance(effect, Offer):
            assert held[effect.device, effect.task, effect.attempt].phase.value == "offered"
        elif isinstance(effect, Revoke):
            assert held[effect.device, effect.task, effect.attempt].phase.value == "expired"
        elif isinstance(effect, Aggregate):
            assert len(effect.devices) >= after.policy.quorum
            assert list(effect.devices) == tally(after, TRAIN)[0]
    for task in Task:
        asked = after.members if task is TRAIN else after.evaluators
        for device in DEVICES:
            attempts = [
                item for item in after.assignments if (item.device, item.task) == (device, task)
            ]
            assert device in asked or not attempts
            assert len(attempts) <= after.policy.max_attempts
            assert [item.attempt for item in sorted(attempts, key=lambda i: i.attempt)] == list(
                range(1, len(attempts) + 1)
            )
            assert sum(item.phase in ACTIVE for item in attempts) <= 1
            delivered = [item for item in attempts if item.phase in DELIVERED]
            assert len(delivered) <= 1, "an answer was asked for twice"
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


@settings(max_examples=300, deadline=None)
@given(new_rounds(), st.lists(HAPPENINGS, max_size=40))
def test_laws_hold_and_nothing_hangs(start: Round, story: list[tuple[Any, ...]]) -> None:
    world = World(start)
    for what in story:
        world.happen(what)
    if world.round.phase is RoundPhase.PLANNED:
        world.tick(0, frozenset())
    # Nobody says anything any more: collection, fold and evaluation each have a deadline.
    for limit in (60.0, 30.0, 60.0):
        world.tick(limit + 1, frozenset(DEVICES))
    assert world.round.phase in ENDED
    assert world.ended == 1


@settings(max_examples=200, deadline=None)
@given(new_rounds(), st.lists(HAPPENINGS, max_size=25))
def test_a_second_look_at_the_same_moment_changes_nothing(
    start: Round, story: list[tuple[Any, ...]]
) -> None:
    world = World(start)
    world.tick(0, frozenset(DEVICES))
    for what in story:
        world.happen(what)
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
def test_the_order_in_which_devices_answer_does_not_matter(
    outcomes: list[tuple[AssignmentPhase, bool]], wanted: int
) -> None:
    members = tuple(DEVICES[: len(outcomes)])
    policy = Policy(len(members), min(wanted, len(members)), 60.0, 10.0, 3)
    ends = set()
    for order in permutations(range(len(members))):
        world = World(Round(1, members, members, policy))
        world.tick(0, frozenset(DEVICES))
        last: tuple[Effect, ...] = ()
        for index in order:
            world.device(members[index], AssignmentPhase.ACCEPTED, True)
            world.device(members[index], *outcomes[index])
            world.round, effects = step(world.round, Tick(world.now, frozenset(DEVICES)))
            last = effects or last
        ends.add((world.round.phase, world.round.reason, last))
    assert len(ends) == 1
