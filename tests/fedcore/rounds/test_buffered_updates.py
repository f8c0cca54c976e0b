"""What becomes of the updates of an asynchronous job, whose turn it is, and what it says."""

from __future__ import annotations

import pytest

from fedcore.rounds.buffered import Window, step_buffered
from fedcore.rounds.queries import waiting_for_buffer
from fedcore.rounds.types import Aggregated, Offer, RoundEvent
from tests.fedcore.rounds.buffered import BUSY, LAST, buffered, older, version
from tests.fedcore.rounds.rounds import BROKEN, DEADLINE, DONE, LEASE, NOW, STOP, part, tick


def parts_of(
    window: Window, event: RoundEvent
) -> dict[tuple[int, str, int], tuple[str, int | None]]:
    return {
        (after.number, item.device, item.attempt): (item.phase.value, item.buffered_in)
        for after, _ in step_buffered(window, event)
        for item in after.assignments
        if item.task.value == "train"
    }


def test_the_buffer_is_marked_before_it_is_folded() -> None:
    window = (older(part("c", "reported")), version("collecting", part("a", "reported"), BUSY[0]))
    found = parts_of(window, tick())
    assert found[2, "c", 1] == found[3, "a", 1] == ("reported", 3)


def test_folded_is_what_was_marked() -> None:
    window = (
        older(buffered("c"), part("c", "reported", 2)),
        version("aggregating", buffered("a"), part("b", "reported")),
    )
    found = parts_of(window, DONE)
    assert found[2, "c", 1] == found[3, "a", 1] == ("folded", 3)
    assert found[2, "c", 2] == found[3, "b", 1] == ("reported", None)


def test_too_old_is_said_with_the_reason() -> None:
    window = (older(part("a", "reported"), number=0), version("collecting", *BUSY))
    stale = step_buffered(window, tick())[0][0].assignments[0]
    assert (stale.phase.value, stale.retryable) == ("refused", False)
    assert stale.reason == "it started 3 versions ago; at most 2 are allowed"


def test_a_pause_loses_no_update() -> None:
    window = (older(buffered("c")), version("aggregating", buffered("a"), part("b", "reported")))
    found = parts_of(window, STOP)
    assert set(found.values()) == {("reported", None)}
    stopped = [after for after, _ in step_buffered(window, STOP)]
    again = parts_of((*stopped, version("planned")), tick(online=frozenset()))
    assert [key for key, value in found.items() if again[key] == ("reported", 3)] == [
        (2, "c", 1),
        (3, "a", 1),
    ]


def test_a_failure_gives_its_updates_up() -> None:
    window = (older(buffered("c")), version("aggregating", buffered("a"), part("b", "reported")))
    assert {phase for phase, _ in parts_of(window, BROKEN).values()} == {"refused"}


def test_the_last_version_gives_up_what_came_too_late() -> None:
    window = (older(part("c", "reported")), version("aggregating", buffered("a"), **LAST))
    found = parts_of(window, Aggregated(NOW))
    assert found[2, "c", 1] == ("refused", None)
    assert found[3, "a", 1] == ("folded", 3)


def test_turns_are_drawn_so_that_nobody_starves() -> None:
    """Version after version with one place for three devices that are all free."""
    asked = []
    for number in range(1, 61):
        one = version("planned", number=number, buffering={"concurrency": 1, "size": 1})
        ((_, effects),) = step_buffered((one,), tick())
        asked += [effect.device for effect in effects if isinstance(effect, Offer)]
    assert len(asked) == 60
    assert all(10 <= asked.count(device) <= 30 for device in "abc")


def test_leases_and_deadlines() -> None:
    ((after, _),) = step_buffered((version("planned"),), tick())
    assert after.deadline_at == NOW + DEADLINE
    assert {item.lease_until for item in after.assignments} == {NOW + LEASE}


SENTENCES = [
    (
        (older(part("a", "reported")), version("collecting", *BUSY)),
        "1 of 2 updates in the buffer; 2 devices train: b, last seen 5 s ago, c, never seen",
    ),
    ((version("collecting"),), "0 of 2 updates in the buffer; no device trains"),
    (
        (version("aggregating", buffered("a")),),
        "waiting for an aggregation worker to fold the updates",
    ),
    ((version("closed"),), ""),
]


@pytest.mark.parametrize(("window", "sentence"), SENTENCES)
def test_what_it_waits_for(window: Window, sentence: str) -> None:
    assert waiting_for_buffer(window, NOW, {"b": NOW - 5}) == sentence
