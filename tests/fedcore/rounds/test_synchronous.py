"""Every arrow of a round."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from fedcore.rounds.synchronous import step
from fedcore.rounds.types import (
    Aggregate,
    Aggregated,
    AggregationFailed,
    AssignmentPhase,
    Effect,
    Ended,
    Interrupted,
    Offer,
    RoundEvent,
    RoundPhase,
    RoundState,
    Tick,
)
from fedcore.topology import clusters
from tests.fedcore.rounds.rounds import (
    BROKEN,
    DEADLINE,
    DONE,
    DUE,
    LEASE,
    NOW,
    POLICY,
    SILENT,
    STOP,
    TRAIN,
    a_round,
    part,
    scored,
    tick,
)


@dataclass(frozen=True)
class Arrow:
    """``effects`` in short: 'offer a', 'revoke a', 'aggregate a b', 'closed', 'failed'."""

    before: RoundState
    event: RoundEvent
    after: str
    effects: tuple[str, ...] = ()
    reason: str = ""


BOTH = part("a", "reported"), part("b", "reported")
CLUSTER = clusters({"b": "a"})
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
    "a cluster is folded before the server folds": Arrow(
        a_round("folding", *BOTH, clusters=CLUSTER), tick(), "folding", ("offer a",)
    ),
    "nothing is aggregated while clusters are folded": Arrow(
        a_round("folding", *BOTH, clusters=CLUSTER), DONE, "folding"
    ),
    "nothing fails to aggregate while clusters are folded": Arrow(
        a_round("folding", *BOTH, clusters=CLUSTER), BROKEN, "folding"
    ),
    "a folding round can be stopped": Arrow(
        a_round("folding", *BOTH, clusters=CLUSTER), STOP, "failed", ("failed",)
    ),
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
    "a model that is not to be evaluated closes the round": Arrow(
        a_round("aggregating", part("a", "reported"), part("b", "reported"), evaluators=()),
        DONE,
        "closed",
        ("closed",),
    ),
    "a start that is not to be evaluated closes at once": Arrow(
        a_round("planned", number=0, evaluators=()), tick(), "closed", ("closed",)
    ),
    "an evaluation has a deadline of its own": Arrow(
        a_round(
            "evaluating",
            scored("a", "reported"),
            scored("b", "training", lease_until=NOW + 1000),
            policy=replace(POLICY, deadline_s=5.0, evaluation_s=DEADLINE),
        ),
        tick(6.0),
        "evaluating",
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


def test_a_short_collection_leaves_the_evaluation_its_time() -> None:
    policy = replace(POLICY, deadline_s=5.0, evaluation_s=DEADLINE)
    folding = a_round("aggregating", part("a", "reported"), policy=policy)
    evaluating, _ = step(folding, Aggregated(NOW + 9))
    assert evaluating.deadline_at == NOW + 9 + DEADLINE
