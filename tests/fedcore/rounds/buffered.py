"""Builders for versions of an asynchronous job in any state, and the check of a transition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fedcore.rounds.buffered import Window, step_buffered
from fedcore.rounds.types import (
    Aggregate,
    AssignmentState,
    Buffering,
    Effect,
    Ended,
    EvaluationArrived,
    Offer,
    RoundEvent,
    RoundPhase,
    RoundState,
)
from tests.fedcore.rounds.rounds import NOW, POLICY, a_round, part

BUFFERING = Buffering(size=2, concurrency=3, max_staleness=2, seed=0, last=False)
LEASED = {"lease_until": NOW + 1000}


def version(phase: str, *parts: AssignmentState, number: int = 3, **changes: Any) -> RoundState:
    """A version of a job with devices a, b and c; without evaluators unless given."""
    buffering = replace(BUFFERING, **changes.pop("buffering", {}))
    values = {
        "members": ("a", "b", "c"),
        "evaluators": (),
        "policy": replace(POLICY, buffering=buffering),
        **changes,
    }
    return a_round(phase, *parts, number=number, **values)


def older(*parts: AssignmentState, number: int = 2, **changes: Any) -> RoundState:
    return version("closed", *parts, number=number, deadline_at=None, **changes)


def buffered(device: str, attempt: int = 1, number: int = 3) -> AssignmentState:
    """An update in the buffer of version ``number``."""
    return part(device, "reported", attempt, buffered_in=number)


LAST: dict[str, Any] = {"buffering": {"last": True}}
BUSY = (part("b", "training", **LEASED), part("c", "training", **LEASED))


@dataclass(frozen=True)
class Transition:
    """``effects`` in short, the number of their round before them, as in '3 offer a'."""

    window: Window
    event: RoundEvent
    after: str
    effects: tuple[str, ...] = ()
    reason: str = ""


def short(number: int, effect: Effect) -> str:
    if isinstance(effect, Ended):
        return f"{number} {'failed' if effect.failed else 'closed'}"
    if isinstance(effect, Aggregate):
        return f"{number} aggregate {' '.join(effect.devices)}"
    if isinstance(effect, EvaluationArrived):
        return f"{number} measured"
    return f"{number} {'offer' if isinstance(effect, Offer) else 'revoke'} {effect.device}"


def assert_transition(transition: Transition) -> None:
    stepped = step_buffered(transition.window, transition.event)
    assert [after.number for after, _ in stepped] == [before.number for before in transition.window]
    actual = [short(after.number, effect) for after, effects in stepped for effect in effects]
    current = stepped[-1][0]
    assert current.phase is RoundPhase(transition.after)
    assert sorted(actual) == sorted(transition.effects)
    assert transition.reason in current.reason
    assert bool(current.deadline_at) == (transition.after not in ("closed", "failed", "planned"))
