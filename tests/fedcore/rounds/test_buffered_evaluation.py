"""Every transition of an asynchronous job's rounds that is about evaluations."""

from __future__ import annotations

import pytest

from tests.fedcore.rounds.buffered import (
    BUSY,
    LAST,
    LEASED,
    Transition,
    assert_transition,
    buffered,
    older,
    version,
)
from tests.fedcore.rounds.rounds import DONE, DUE, SILENT, STOP, part, scored, tick

TRANSITIONS = {
    "a free device evaluates an older version": Transition(
        (older(evaluators=("a", "b", "c")), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("2 offer a",),
    ),
    "only the newest version is evaluated": Transition(
        (
            older(number=1, evaluators=("a", "b", "c")),
            older(evaluators=("a", "b", "c")),
            version("collecting", *BUSY),
        ),
        tick(),
        "collecting",
        ("2 offer a",),
    ),
    "a device that has evaluated trains": Transition(
        (older(scored("a", "folded"), evaluators=("a",)), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("3 offer a",),
    ),
    "an evaluation is accepted at once": Transition(
        (older(scored("a", "reported"), evaluators=("a",)), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("2 measured", "3 offer a"),
    ),
    "a lost evaluation is offered again": Transition(
        (older(scored("a", "training", **SILENT), evaluators=("a",)), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("2 revoke a", "2 offer a"),
    ),
    "a refused evaluation is not offered again": Transition(
        (
            older(scored("a", "refused", retryable=False), evaluators=("a",)),
            version("collecting", *BUSY),
        ),
        tick(),
        "collecting",
        ("3 offer a",),
    ),
    "evaluations go on during an aggregation": Transition(
        (older(evaluators=("a",)), version("aggregating", buffered("a"), *BUSY)),
        tick(),
        "aggregating",
        ("2 offer a",),
    ),
    "the last version stops training and is evaluated": Transition(
        (
            older(part("c", "training", **LEASED), part("a", "reported")),
            version("aggregating", buffered("a"), BUSY[0], evaluators=("a", "b"), **LAST),
        ),
        DONE,
        "evaluating",
        ("2 revoke c", "3 revoke b"),
    ),
    "the last version of a job without evaluation": Transition(
        (older(scored("c", "training", **LEASED)), version("aggregating", buffered("a"), **LAST)),
        DONE,
        "closed",
        ("2 revoke c", "3 closed"),
    ),
    "every device evaluates the last version": Transition(
        (version("evaluating", evaluators=("a", "b"), **LAST),),
        tick(),
        "evaluating",
        ("3 offer a", "3 offer b"),
    ),
    "a device that evaluates an older version finishes that first": Transition(
        (
            older(scored("b", "training", **LEASED), evaluators=("a", "b")),
            version("evaluating", evaluators=("a", "b"), **LAST),
        ),
        tick(),
        "evaluating",
        ("3 offer a",),
    ),
    "the last version waits for its evaluations": Transition(
        (version("evaluating", scored("a", "folded"), evaluators=("a", "b"), **LAST),),
        tick(online=frozenset()),
        "evaluating",
    ),
    "the last evaluation closes the job's last version": Transition(
        (version("evaluating", scored("a", "reported"), evaluators=("a",), **LAST),),
        tick(),
        "closed",
        ("3 measured", "3 closed"),
    ),
    "the evaluation deadline closes the last version": Transition(
        (
            version(
                "evaluating",
                scored("a", "folded"),
                scored("b", "training", **LEASED),
                evaluators=("a", "b", "c"),
                **LAST,
            ),
        ),
        tick(DUE),
        "closed",
        ("3 revoke b", "3 closed"),
        "2 evaluations are missing",
    ),
    "a pause retains the last version": Transition(
        (version("evaluating", scored("a", "training", **LEASED), evaluators=("a",), **LAST),),
        STOP,
        "closed",
        ("3 revoke a", "3 closed"),
    ),
}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_transition(name: str) -> None:
    assert_transition(TRANSITIONS[name])
