"""Every transition of a synchronous round."""

from __future__ import annotations

from dataclasses import replace

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
    RoundPhase,
    Tick,
)
from tests.fedcore.rounds.rounds import (
    DEADLINE,
    LEASE,
    NOW,
    POLICY,
    SILENT,
    TRAIN,
    a_round,
    part,
    tick,
)
from tests.fedcore.rounds.synchronous import TRANSITIONS, Transition


def in_short(effect: Effect) -> str:
    if isinstance(effect, Ended):
        return "failed" if effect.failed else "closed"
    if isinstance(effect, Aggregate):
        return f"aggregate {' '.join(effect.devices)}"
    return f"{type(effect).__name__.lower()} {effect.device}"


@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=list(TRANSITIONS))
def test_transition(transition: Transition) -> None:
    after, effects = step(transition.before, transition.event)
    assert after.phase.value == transition.after
    assert tuple(in_short(effect) for effect in effects) == transition.effects
    assert transition.reason in after.reason
    if effects and isinstance(effects[-1], Ended):
        assert effects[-1].reason == after.reason


def test_every_phase_has_a_case_for_every_event() -> None:
    walked = {
        (transition.before.phase, type(transition.event)) for transition in TRANSITIONS.values()
    }
    kinds = (Tick, Aggregated, AggregationFailed, Interrupted)
    due = {(phase, kind) for phase in RoundPhase for kind in kinds}
    # Broadcasting differs from collecting in nothing but its name.
    due -= {(RoundPhase.BROADCASTING, kind) for kind in kinds[1:]}
    assert due <= walked


def test_offer_sets_lease_and_deadline() -> None:
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


def test_second_attempt_retains_the_first() -> None:
    before = a_round("collecting", part("a", "training", **SILENT), part("b", "training"))
    after, effects = step(before, tick())
    assert effects[1] == Offer("a", TRAIN, 2)
    mine = [(item.attempt, item.phase.value) for item in after.assignments if item.device == "a"]
    assert sorted(mine) == [(1, "expired"), (2, "offered")]
    assert "silent for longer than its lease of 10 s" in after.assignments[-2].reason


def test_evaluation_has_its_own_time_limit() -> None:
    policy = replace(POLICY, deadline_s=5.0, evaluation_s=DEADLINE)
    folding = a_round("aggregating", part("a", "reported"), policy=policy)
    evaluating, _ = step(folding, Aggregated(NOW + 9))
    assert evaluating.deadline_at == NOW + 9 + DEADLINE
