"""Every transition of an asynchronous job's rounds that is about training and aggregation."""

from __future__ import annotations

import pytest

from tests.fedcore.rounds.buffered import (
    BUSY,
    LEASED,
    Transition,
    assert_transition,
    buffered,
    older,
    version,
)
from tests.fedcore.rounds.rounds import BROKEN, DONE, DUE, SILENT, STOP, part, tick

TRANSITIONS = {
    "a planned version is offered to every free device": Transition(
        (version("planned"),), tick(), "collecting", ("3 offer a", "3 offer b", "3 offer c")
    ),
    "an offline device is offered work when it returns": Transition(
        (version("planned"),), tick(online=frozenset("b")), "collecting", ("3 offer b",)
    ),
    "a device that trains on an older model gets no offer": Transition(
        (older(part("a", "training", **LEASED)), version("planned")),
        tick(),
        "collecting",
        ("3 offer b", "3 offer c"),
    ),
    "concurrency limits the devices that train": Transition(
        (
            older(part("a", "training", **LEASED)),
            version("planned", buffering={"concurrency": 2, "seed": 1}),
        ),
        tick(),
        "collecting",
        ("3 offer b",),
    ),
    "a planned version can be stopped": Transition(
        (version("planned"),), STOP, "failed", ("3 failed",), "the job was paused"
    ),
    "one update does not fill the buffer; its device trains again": Transition(
        (version("collecting", part("a", "reported"), *BUSY),),
        tick(),
        "collecting",
        ("3 offer a",),
    ),
    "a device that waited for the model gets the next one": Transition(
        (version("collecting", part("a", "reported"), part("b", "reported"), BUSY[1]),),
        tick(),
        "aggregating",
        ("3 aggregate a b",),
    ),
    "an update of an older model counts, before newer ones": Transition(
        (older(part("c", "reported")), version("collecting", part("a", "reported"), BUSY[0])),
        tick(),
        "aggregating",
        ("3 aggregate c a",),
    ),
    "one device fills the buffer twice": Transition(
        (version("collecting", part("a", "reported"), part("a", "reported", 2), *BUSY),),
        tick(),
        "aggregating",
        ("3 aggregate a a",),
    ),
    "an update beyond the size waits for the next version": Transition(
        (
            version(
                "collecting", part("a", "reported"), part("b", "reported"), part("c", "reported")
            ),
        ),
        tick(),
        "aggregating",
        ("3 aggregate a b",),
    ),
    "a stale update is refused; its device trains again": Transition(
        (older(part("a", "reported"), number=0), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("3 offer a",),
    ),
    "stale training is revoked; its device trains again": Transition(
        (older(part("a", "training", **LEASED), number=0), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("0 revoke a", "3 offer a"),
    ),
    "an update at the staleness limit counts": Transition(
        (older(part("a", "training", **LEASED), number=1), version("collecting", *BUSY)),
        tick(),
        "collecting",
    ),
    "a silent device loses its lease and gets another offer": Transition(
        (version("collecting", part("a", "training", **SILENT), *BUSY),),
        tick(),
        "collecting",
        ("3 revoke a", "3 offer a"),
    ),
    "a silent device on an older model gets the newest": Transition(
        (older(part("a", "training", **SILENT)), version("collecting", *BUSY)),
        tick(),
        "collecting",
        ("2 revoke a", "3 offer a"),
    ),
    "a device that used its attempts waits for the next version": Transition(
        (version("collecting", part("a", "failed"), part("a", "expired", 2), *BUSY),),
        tick(),
        "collecting",
    ),
    "a device that refused waits for the next version": Transition(
        (version("collecting", part("a", "refused", retryable=False), *BUSY),), tick(), "collecting"
    ),
    "a partly filled buffer is aggregated at the deadline": Transition(
        (version("collecting", part("a", "reported"), *BUSY),),
        tick(DUE, online=frozenset()),
        "aggregating",
        ("3 aggregate a",),
    ),
    "a partly filled buffer is aggregated when no device can train": Transition(
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
    "an empty buffer fails at the deadline": Transition(
        (older(part("a", "training", **LEASED)), version("collecting", *BUSY)),
        tick(DUE),
        "failed",
        ("2 revoke a", "3 revoke b", "3 revoke c", "3 failed"),
        "no device delivered an update by the deadline",
    ),
    "an empty buffer fails when no device can train": Transition(
        (
            version(
                "collecting",
                *(part(name, "failed", retryable=False, reason="NaN") for name in "abc"),
            ),
        ),
        tick(),
        "failed",
        ("3 failed",),
        "and no other device can: a: NaN; b: NaN; c: NaN",
    ),
    "a device that reports during an aggregation waits": Transition(
        (version("aggregating", buffered("a"), buffered("b"), part("c", "reported")),),
        tick(),
        "aggregating",
    ),
    "an aggregation has a time limit": Transition(
        (version("aggregating", buffered("a"), BUSY[0]),),
        tick(DUE),
        "failed",
        ("3 revoke b", "3 failed"),
        "no worker aggregated the updates within 50 s",
    ),
    "a stored version is closed; training goes on": Transition(
        (
            older(part("c", "training", **LEASED)),
            version("aggregating", buffered("a"), buffered("b")),
        ),
        DONE,
        "closed",
        ("3 closed",),
    ),
    "an aggregation before the buffer is full is ignored": Transition(
        (version("collecting", part("a", "reported"), *BUSY),), DONE, "collecting"
    ),
    "a failed aggregation before the buffer is full is ignored": Transition(
        (version("collecting", part("a", "reported"), *BUSY),), BROKEN, "collecting"
    ),
    "a failed aggregation fails the version": Transition(
        (version("aggregating", buffered("a"), BUSY[0]),),
        BROKEN,
        "failed",
        ("3 revoke b", "3 failed"),
        "no space",
    ),
    "a buffer without a usable update is filled again": Transition(
        (version("aggregating", part("a", "refused", retryable=False), BUSY[0]),),
        BROKEN,
        "collecting",
        (),
        "no space",
    ),
    "a pause revokes all work": Transition(
        (older(part("a", "training", **LEASED)), version("collecting", *BUSY)),
        STOP,
        "failed",
        ("2 revoke a", "3 revoke b", "3 revoke c", "3 failed"),
        "the job was paused",
    ),
    "a pause between two versions revokes all work": Transition(
        (older(part("a", "training", **LEASED)), older(BUSY[0], number=3)),
        STOP,
        "closed",
        ("2 revoke a", "3 revoke b"),
    ),
    "what has ended stays": Transition((older(number=3),), tick(), "closed"),
}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_transition(name: str) -> None:
    assert_transition(TRANSITIONS[name])
