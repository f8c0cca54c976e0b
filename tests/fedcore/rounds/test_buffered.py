"""Every arrow of an asynchronous job's rounds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fedcore.rounds.buffered import Window, step_buffered
from fedcore.rounds.types import (
    Aggregate,
    Effect,
    Ended,
    EvaluationArrived,
    Offer,
    RoundEvent,
    RoundPhase,
)
from tests.fedcore.rounds.buffered import BUSY, HELD, LAST, buffered, older, version
from tests.fedcore.rounds.rounds import BROKEN, DONE, DUE, SILENT, STOP, part, scored, tick


@dataclass(frozen=True)
class Arrow:
    """``effects`` in short, the number of their round before them, as in '3 offer a'."""

    window: Window
    event: RoundEvent
    after: str
    effects: tuple[str, ...] = ()
    reason: str = ""


ARROWS = {
    "a planned version is offered to everybody who is free": Arrow(
        (version("planned"),), tick(), "collecting", ("3 offer a", "3 offer b", "3 offer c")
    ),
    "who is away is asked when back": Arrow(
        (version("planned"),), tick(online=frozenset("b")), "collecting", ("3 offer b",)
    ),
    "who still trains on an older model is left in peace": Arrow(
        (older(part("a", "training", **HELD)), version("planned")),
        tick(),
        "collecting",
        ("3 offer b", "3 offer c"),
    ),
    "no more devices train than may": Arrow(
        (
            older(part("a", "training", **HELD)),
            version("planned", buffering={"concurrency": 2, "seed": 1}),
        ),
        tick(),
        "collecting",
        ("3 offer b",),
    ),
    "a planned version can be stopped": Arrow(
        (version("planned"),), STOP, "failed", ("3 failed",), "the job was paused"
    ),
    "one update does not fill the buffer, and its device goes on": Arrow(
        (version("collecting", part("a", "reported"), *BUSY),),
        tick(),
        "collecting",
        ("3 offer a",),
    ),
    "who waits for the model gets the next one": Arrow(
        (version("collecting", part("a", "reported"), part("b", "reported"), BUSY[1]),),
        tick(),
        "aggregating",
        ("3 aggregate a b",),
    ),
    "an update of an older model counts, before newer ones": Arrow(
        (older(part("c", "reported")), version("collecting", part("a", "reported"), BUSY[0])),
        tick(),
        "aggregating",
        ("3 aggregate c a",),
    ),
    "the same device twice": Arrow(
        (version("collecting", part("a", "reported"), part("a", "reported", 2), *BUSY),),
        tick(),
        "aggregating",
        ("3 aggregate a a",),
    ),
    "what does not fit waits for the next version": Arrow(
        (
            version(
                "collecting", part("a", "reported"), part("b", "reported"), part("c", "reported")
            ),
        ),
        tick(),
        "aggregating",
        ("3 aggregate a b",),
    ),
    "an update that is too old is discarded, and its device trains on": Arrow(
        (older(part("a", "reported"), number=0), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("3 offer a",),
    ),
    "who trains in vain is stopped, and trains on": Arrow(
        (older(part("a", "training", **HELD), number=0), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("0 revoke a", "3 offer a"),
    ),
    "as old as allowed is not too old": Arrow(
        (older(part("a", "training", **HELD), number=1), version("collecting", *BUSY)),
        tick(),
        "collecting",
    ),
    "a silent device loses its lease and is asked again": Arrow(
        (version("collecting", part("a", "training", **SILENT), *BUSY),),
        tick(),
        "collecting",
        ("3 revoke a", "3 offer a"),
    ),
    "a silent device on an older model gets the newest": Arrow(
        (older(part("a", "training", **SILENT)), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("2 revoke a", "3 offer a"),
    ),
    "after so many losses a device is left alone until the next version": Arrow(
        (version("collecting", part("a", "failed"), part("a", "expired", 2), *BUSY),),
        tick(),
        "collecting",
    ),
    "as is one that refused": Arrow(
        (version("collecting", part("a", "refused", retryable=False), *BUSY),), tick(), "collecting"
    ),
    "at the deadline the buffer is folded as full as it is": Arrow(
        (version("collecting", part("a", "reported"), *BUSY),),
        tick(DUE, online=frozenset()),
        "aggregating",
        ("3 aggregate a",),
    ),
    "and when nobody is left who could fill it": Arrow(
        (
            version(
                "collecting",
                part("a", "reported"),
                part("a", "refused", 2, retryable=False),
                part("b", "refused", retryable=False),
                part("c", "refused", retryable=False),
            ),
        ),
        tick(),
        "aggregating",
        ("3 aggregate a",),
    ),
    "an empty buffer fails at the deadline": Arrow(
        (older(part("a", "training", **HELD)), version("collecting", *BUSY)),
        tick(DUE),
        "failed",
        ("2 revoke a", "3 revoke b", "3 revoke c", "3 failed"),
        "no device delivered an update by the deadline",
    ),
    "an empty buffer fails when nobody is left": Arrow(
        (
            version(
                "collecting",
                *(part(name, "failed", retryable=False, reason="NaN") for name in "abc"),
            ),
        ),
        tick(),
        "failed",
        ("3 failed",),
        "nobody is left who could: a: NaN; b: NaN; c: NaN",
    ),
    "who reports during a fold waits for its outcome": Arrow(
        (version("aggregating", buffered("a"), buffered("b"), part("c", "reported")),),
        tick(),
        "aggregating",
    ),
    "the fold is not waited for for ever": Arrow(
        (version("aggregating", buffered("a"), BUSY[0]),),
        tick(DUE),
        "failed",
        ("3 revoke b", "3 failed"),
        "no worker aggregated the updates within 50 s",
    ),
    "a stored version is closed, and nobody is stopped": Arrow(
        (
            older(part("c", "training", **HELD)),
            version("aggregating", buffered("a"), buffered("b")),
        ),
        DONE,
        "closed",
        ("3 closed",),
    ),
    "nothing was aggregated before the buffer was full": Arrow(
        (version("collecting", part("a", "reported"), *BUSY),), DONE, "collecting"
    ),
    "nothing failed to aggregate before": Arrow(
        (version("collecting", part("a", "reported"), *BUSY),), BROKEN, "collecting"
    ),
    "a fold that cannot be done fails the version": Arrow(
        (version("aggregating", buffered("a"), BUSY[0]),),
        BROKEN,
        "failed",
        ("3 revoke b", "3 failed"),
        "no space",
    ),
    "a buffer without a sound update is filled again": Arrow(
        (version("aggregating", part("a", "refused", retryable=False), BUSY[0]),),
        BROKEN,
        "collecting",
        (),
        "no space",
    ),
    "an older version is evaluated by who becomes free": Arrow(
        (older(evaluators=("a", "b", "c")), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("2 offer a",),
    ),
    "only the newest version is": Arrow(
        (
            older(number=1, evaluators=("a", "b", "c")),
            older(evaluators=("a", "b", "c")),
            version("collecting", *BUSY),
        ),
        tick(),
        "collecting",
        ("2 offer a",),
    ),
    "who has evaluated it trains": Arrow(
        (older(scored("a", "folded"), evaluators=("a",)), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("3 offer a",),
    ),
    "an evaluation is taken as it comes": Arrow(
        (older(scored("a", "reported"), evaluators=("a",)), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("2 measured", "3 offer a"),
    ),
    "a lost evaluation is asked for again": Arrow(
        (older(scored("a", "training", **SILENT), evaluators=("a",)), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("2 revoke a", "2 offer a"),
    ),
    "a refused evaluation is not": Arrow(
        (
            older(scored("a", "refused", retryable=False), evaluators=("a",)),
            version("collecting", *BUSY),
        ),
        tick(),
        "collecting",
        ("3 offer a",),
    ),
    "evaluations go on during a fold": Arrow(
        (older(evaluators=("a",)), version("aggregating", buffered("a"), *BUSY)),
        tick(),
        "aggregating",
        ("2 offer a",),
    ),
    "the last version stops the training and is evaluated": Arrow(
        (
            older(part("c", "training", **HELD), part("a", "reported")),
            version("aggregating", buffered("a"), BUSY[0], evaluators=("a", "b"), **LAST),
        ),
        DONE,
        "evaluating",
        ("2 revoke c", "3 revoke b"),
    ),
    "the last version of a job that does not evaluate it": Arrow(
        (older(scored("c", "training", **HELD)), version("aggregating", buffered("a"), **LAST)),
        DONE,
        "closed",
        ("2 revoke c", "3 closed"),
    ),
    "everybody evaluates the last version": Arrow(
        (version("evaluating", evaluators=("a", "b"), **LAST),),
        tick(),
        "evaluating",
        ("3 offer a", "3 offer b"),
    ),
    "who still evaluates an older one does that first": Arrow(
        (
            older(scored("b", "training", **HELD), evaluators=("a", "b")),
            version("evaluating", evaluators=("a", "b"), **LAST),
        ),
        tick(),
        "evaluating",
        ("3 offer a",),
    ),
    "it is waited for": Arrow(
        (version("evaluating", scored("a", "folded"), evaluators=("a", "b"), **LAST),),
        tick(online=frozenset()),
        "evaluating",
    ),
    "the last evaluation closes the job's last version": Arrow(
        (version("evaluating", scored("a", "reported"), evaluators=("a",), **LAST),),
        tick(),
        "closed",
        ("3 measured", "3 closed"),
    ),
    "or its deadline": Arrow(
        (
            version(
                "evaluating",
                scored("a", "folded"),
                scored("b", "training", **HELD),
                evaluators=("a", "b", "c"),
                **LAST,
            ),
        ),
        tick(DUE),
        "closed",
        ("3 revoke b", "3 closed"),
        "2 evaluations are missing",
    ),
    "a pause stops everybody": Arrow(
        (older(part("a", "training", **HELD)), version("collecting", *BUSY)),
        STOP,
        "failed",
        ("2 revoke a", "3 revoke b", "3 revoke c", "3 failed"),
        "the job was paused",
    ),
    "a pause keeps the last version": Arrow(
        (version("evaluating", scored("a", "training", **HELD), evaluators=("a",), **LAST),),
        STOP,
        "closed",
        ("3 revoke a", "3 closed"),
    ),
    "a pause between two versions stops everybody too": Arrow(
        (older(part("a", "training", **HELD)), older(BUSY[0], number=3)),
        STOP,
        "closed",
        ("2 revoke a", "3 revoke b"),
    ),
    "what has ended stays": Arrow((older(number=3),), tick(), "closed"),
}


def short(number: int, effect: Effect) -> str:
    if isinstance(effect, Ended):
        return f"{number} {'failed' if effect.failed else 'closed'}"
    if isinstance(effect, Aggregate):
        return f"{number} aggregate {' '.join(effect.devices)}"
    if isinstance(effect, EvaluationArrived):
        return f"{number} measured"
    return f"{number} {'offer' if isinstance(effect, Offer) else 'revoke'} {effect.device}"


@pytest.mark.parametrize("name", ARROWS)
def test_arrow(name: str) -> None:
    arrow = ARROWS[name]
    stepped = step_buffered(arrow.window, arrow.event)
    assert [after.number for after, _ in stepped] == [before.number for before in arrow.window]
    told = [short(after.number, effect) for after, effects in stepped for effect in effects]
    current = stepped[-1][0]
    assert current.phase is RoundPhase(arrow.after)
    assert sorted(told) == sorted(arrow.effects)
    assert arrow.reason in current.reason
    assert bool(current.deadline_at) == (arrow.after not in ("closed", "failed", "planned"))
