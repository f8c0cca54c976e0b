"""Updates of an asynchronous job, the order of devices, and the status sentence."""

from __future__ import annotations

import pytest

from fedcore.rounds.buffered import Window, step_buffered
from fedcore.rounds.queries import waiting_for_buffer
from fedcore.rounds.types import Aggregated, Offer, RoundEvent
from tests.fedcore.rounds.buffered import BUSY, LAST, buffered, older, version
from tests.fedcore.rounds.rounds import BROKEN, DEADLINE, DONE, LEASE, NOW, STOP, part, tick


def updates_after(
    window: Window, event: RoundEvent
) -> dict[tuple[int, str, int], tuple[str, int | None]]:
    return {
        (after.number, item.device, item.attempt): (item.phase.value, item.buffered_in)
        for after, _ in step_buffered(window, event)
        for item in after.assignments
        if item.task.value == "train"
    }


def test_buffer_is_marked_before_aggregation() -> None:
    window = (older(part("c", "reported")), version("collecting", part("a", "reported"), BUSY[0]))
    updates = updates_after(window, tick())
    assert updates[2, "c", 1] == updates[3, "a", 1] == ("reported", 3)


def test_aggregation_folds_the_marked_updates() -> None:
    window = (
        older(buffered("c"), part("c", "reported", 2)),
        version("aggregating", buffered("a"), part("b", "reported")),
    )
    updates = updates_after(window, DONE)
    assert updates[2, "c", 1] == updates[3, "a", 1] == ("folded", 3)
    assert updates[2, "c", 2] == updates[3, "b", 1] == ("reported", None)


def test_stale_update_is_refused_with_a_reason() -> None:
    window = (older(part("a", "reported"), number=0), version("collecting", *BUSY))
    stale = step_buffered(window, tick())[0][0].assignments[0]
    assert (stale.phase.value, stale.retryable) == ("refused", False)
    assert stale.reason == "it started 3 versions ago; at most 2 are allowed"


def test_pause_retains_reported_updates() -> None:
    window = (older(buffered("c")), version("aggregating", buffered("a"), part("b", "reported")))
    updates = updates_after(window, STOP)
    assert set(updates.values()) == {("reported", None)}
    stopped = [after for after, _ in step_buffered(window, STOP)]
    again = updates_after((*stopped, version("planned")), tick(online=frozenset()))
    assert [key for key, value in updates.items() if again[key] == ("reported", 3)] == [
        (2, "c", 1),
        (3, "a", 1),
    ]


def test_failure_refuses_buffered_updates() -> None:
    window = (older(buffered("c")), version("aggregating", buffered("a"), part("b", "reported")))
    assert {phase for phase, _ in updates_after(window, BROKEN).values()} == {"refused"}


def test_last_version_refuses_late_updates() -> None:
    window = (older(part("c", "reported")), version("aggregating", buffered("a"), **LAST))
    updates = updates_after(window, Aggregated(NOW))
    assert updates[2, "c", 1] == ("refused", None)
    assert updates[3, "a", 1] == ("folded", 3)


def test_turns_starve_no_device() -> None:
    """Sixty versions with one place for three free devices."""
    offered = []
    for number in range(1, 61):
        one = version("planned", number=number, buffering={"concurrency": 1, "size": 1})
        ((_, effects),) = step_buffered((one,), tick())
        offered += [effect.device for effect in effects if isinstance(effect, Offer)]
    assert len(offered) == 60
    assert all(10 <= offered.count(device) <= 30 for device in "abc")


def test_first_tick_sets_lease_and_deadline() -> None:
    ((after, _),) = step_buffered((version("planned"),), tick())
    assert after.deadline_at == NOW + DEADLINE
    assert {item.lease_until for item in after.assignments} == {NOW + LEASE}


SENTENCES = [
    (
        (older(part("a", "reported")), version("collecting", *BUSY)),
        "1 of 2 updates in the buffer; 2 training: b, last seen 5 s ago, c, never seen",
    ),
    ((version("collecting"),), "0 of 2 updates in the buffer; no device is training"),
    (
        (version("aggregating", buffered("a")),),
        "waiting for an aggregation worker to fold the updates",
    ),
    ((version("closed"),), ""),
]


@pytest.mark.parametrize(("window", "sentence"), SENTENCES)
def test_waiting_for_buffer_is_a_sentence(window: Window, sentence: str) -> None:
    assert waiting_for_buffer(window, NOW, {"b": NOW - 5}) == sentence


def test_waiting_for_buffer_names_devices_that_cannot_work() -> None:
    reasons = {"b": "connected, but its disk is full", "c": "offline, last seen 70 s ago"}
    text = waiting_for_buffer((version("collecting"),), NOW, {}, reasons)
    assert text == (
        "0 of 2 updates in the buffer; no device is training: "
        "b (connected, but its disk is full), c (offline, last seen 70 s ago)"
    )
    busy = waiting_for_buffer((version("collecting", *BUSY),), NOW, {"b": NOW}, reasons)
    assert busy.endswith(
        "2 training: b (connected, but its disk is full), c (offline, last seen 70 s ago)"
    )
