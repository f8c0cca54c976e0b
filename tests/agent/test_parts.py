"""Unit tests of the agent: outbox, database, envelopes, retries, failures, sender."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedcore.errors import DataError, ServerRefused, ServerUnavailable, Stopped
from fedcore.formats.line_messages import MAX_MESSAGE_BYTES
from workers.agent.agent_errors import Busy, EnvelopeRefused, Revoked
from workers.agent.assignment.failure import Failure, failure_of
from workers.agent.http.requests import ServerResponse
from workers.agent.http.responses import reason_of
from workers.agent.http.retry import delays, keep_trying
from workers.agent.http.server_clock import Clock, seconds_of
from workers.agent.line.gatekeeper import Gatekeeper
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import Activity, SharedState
from workers.agent.state.site_key import SiteKey
from workers.agent.telemetry.sender import Sender


@pytest.fixture
def database(tmp_path: Path) -> StateDatabase:
    return StateDatabase(tmp_path / "agent.sqlite3")


def test_sample_numbers_are_never_used_twice(database: StateDatabase) -> None:
    outbox = Outbox(database)
    assert [outbox.add("t", None, {"loss": 1.0}) for _ in range(3)] == [1, 2, 3]
    outbox.acknowledge(3)
    database.close()
    assert outbox.add("t", None, {}) == 4
    outbox.continue_from(3)
    assert outbox.add("t", None, {}) == 5
    outbox.continue_from(100)
    outbox.clear()
    assert outbox.add("t", None, {"loss": float("inf"), "step": 1}) == 100
    assert outbox.oldest(9)[0].values == {"step": 1}


def test_new_outbox_continues_from_the_servers_number(database: StateDatabase) -> None:
    outbox = Outbox(database)
    outbox.continue_from(41)
    assert outbox.add("t", None, {}) == 41


def test_full_outbox_drops_the_oldest(
    database: StateDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(database, max_samples=50)
    for _ in range(60):
        outbox.add("t", None, {})
    assert len(outbox) <= 51
    assert outbox.oldest(1)[0].seq > 1
    assert outbox.oldest(100)[-1].seq == 60
    assert "oldest samples" in caplog.text


def test_damaged_database_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sqlite3"
    path.write_bytes(b"not a database at all" * 100)
    assert Outbox(StateDatabase(path)).add("t", None, {}) == 1
    assert len(list(tmp_path.glob("*.broken-*"))) == 1


def test_database_is_closed_in_a_fork_and_usable(database: StateDatabase) -> None:
    outbox = Outbox(database)
    outbox.add("t", None, {})
    pid = os.fork()
    if pid == 0:
        os._exit(0 if outbox.add("t", None, {}) == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert outbox.add("t", None, {}) == 3


def test_shared_state_marks(database: StateDatabase) -> None:
    shared_state = SharedState(database)
    activity = Activity("a", "training", 3, 10, os.getpid())
    shared_state.set_activity(activity)
    assert shared_state.activity() == activity
    assert shared_state.cancel("a", "paused") and not shared_state.cancel("a", "again")
    mark = shared_state.cancelled("a")
    assert mark is not None and mark.reason == "paused" and mark.age_s < 5
    assert shared_state.read_note("flush") == ""
    assert shared_state.end_activity("a") and not shared_state.end_activity("a")
    assert shared_state.read_note("flush")
    shared_state.wipe()
    assert shared_state.cancelled("a") is None and shared_state.read_note("flush") == ""


KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
GOOD = {"kind": "work", "device": 7, "assignment": "a", "nonce": "n" * 16, "expires_at": 2000}


def sealed(values: Any) -> dict[str, str]:
    body = values if isinstance(values, str) else json.dumps(values)
    return {"body": body, "signature": base64.b64encode(KEY.sign(body.encode())).decode()}


@pytest.mark.parametrize(
    "envelope",
    [
        None,
        {},
        {"body": "{}", "signature": 7},
        {"body": json.dumps(GOOD), "signature": "bm8="},
        {"body": json.dumps(GOOD), "signature": "not base64!"},
        {**sealed(GOOD), "body": json.dumps({**GOOD, "assignment": "b"})},
        sealed("[]"),
        sealed("no json"),
        sealed({**GOOD, "kind": "cancel"}),
        sealed({**GOOD, "device": 8}),
        sealed({**GOOD, "expires_at": 999}),
        sealed({**GOOD, "expires_at": "never"}),
        sealed({**GOOD, "nonce": ""}),
        sealed({**GOOD, "assignment": None}),
        sealed({**GOOD, "padding": "x" * 5000}),
    ],
)
def test_invalid_envelopes_are_refused(database: StateDatabase, envelope: Any) -> None:
    keeper = Gatekeeper(7, SiteKey(PUBLIC), SharedState(database), lambda: 1000.0)
    with pytest.raises(EnvelopeRefused):
        keeper.open(envelope, "work")


def test_envelope_opens_once_even_after_a_restart(database: StateDatabase) -> None:
    for attempt in range(2):
        keeper = Gatekeeper(7, SiteKey(PUBLIC), SharedState(database), lambda: 1000.0)
        if attempt == 0:
            assert keeper.open(sealed(GOOD), "work") == keeper.open(sealed(GOOD), "work")
            keeper.close(keeper.open(sealed(GOOD), "work"))
        else:
            with pytest.raises(EnvelopeRefused, match="seen before"):
                keeper.open(sealed(GOOD), "work")
        database.close()


def test_backoff_grows_to_half_a_minute() -> None:
    waits = delays(jitter=lambda: 0.0)
    assert [next(waits) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    shortest = delays(jitter=lambda: 1.0)
    assert next(shortest) == 0.75


def test_retries_end_at_the_deadline_or_on_stop() -> None:
    def away() -> None:
        raise ServerUnavailable("away")

    def stop() -> None:
        raise Stopped("enough")

    with pytest.raises(ServerUnavailable):
        keep_trying(away, time.monotonic() - 1, lambda: None, "calling")
    with pytest.raises(Stopped):
        keep_trying(away, time.monotonic() + 9, stop, "calling")


def test_clock_far_off_is_corrected() -> None:
    clock = Clock()
    clock.observe("Wed, 01 Jan 2200 00:00:00 GMT")
    assert abs(clock.now() - seconds_of("2200-01-01T00:00:00Z")) < 2
    clock.observe("nonsense")
    assert clock.iso().startswith("2200-01-01")
    assert seconds_of("2026-01-01T00:00:00") == seconds_of("2026-01-01T01:00:00+01:00")


def test_failures_by_exception() -> None:
    failure = failure_of
    assert failure(DataError("empty")) == Failure("empty", False)
    assert failure(ServerUnavailable("away")) == Failure("away", True)
    assert failure(ServerRefused("over", 409)) is None
    assert failure(Revoked("gone", 401)) is None
    assert failure(ServerRefused("too large", 413)) == Failure("too large", False)
    full = failure(OSError(28, "No space left on device"))
    assert full is not None and full.retryable and "No space left" in full.reason
    assert failure(ValueError("x")) == Failure("unexpected ValueError: x", True)


def test_problem_documents_become_one_line() -> None:
    body = {"title": "Bad", "status": 400, "detail": "two faults", "name": ["is taken"]}
    answer = ServerResponse(400, body=json.dumps(body).encode())
    assert reason_of(answer) == "two faults; name: ['is taken']"
    assert "502" in reason_of(ServerResponse(502, body=b"<html>"))


class ScriptedLine:
    """Refuses the samples that a test names; remembers those it accepted."""

    def __init__(self, refuse: set[int]) -> None:
        self.refuse, self.taken, self.calls = refuse, [], 0
        self.error: Exception | None = None

    def measurements(self, body: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        if self.error:
            raise self.error
        assert len(json.dumps(body)) < MAX_MESSAGE_BYTES
        seqs = [sample["seq"] for sample in body["samples"]]
        if self.refuse & set(seqs):
            raise ServerRefused("unknown value", 400)
        self.taken += seqs
        return {"interval_s": 5.0} if seqs else {}


def sender_of(line: ScriptedLine, database: StateDatabase) -> Sender:
    return Sender(line, Outbox(database), SharedState(database), lambda: None)  # type: ignore[arg-type]


def test_only_the_refused_sample_is_dropped(database: StateDatabase) -> None:
    outbox = Outbox(database)
    for _ in range(700):
        outbox.add("t", None, {})
    line = ScriptedLine({123, 456})
    sender = sender_of(line, database)
    while len(outbox):
        assert sender.turn() in (0.0, 5.0)
    assert line.taken == [seq for seq in range(1, 701) if seq not in (123, 456)]
    assert line.calls < 60
    # An idle device without samples has nothing to say.
    calls = line.calls
    assert sender.turn() == 5.0
    assert line.calls == calls


def test_large_samples_travel_in_several_messages(database: StateDatabase) -> None:
    outbox = Outbox(database)
    for _ in range(60):
        outbox.add("t", None, {f"value_{number}": 1.0 for number in range(200)})
    line = ScriptedLine(set())
    sender = sender_of(line, database)
    while sender.turn() == 0.0:
        pass
    assert line.taken == list(range(1, 61)) and line.calls > 3
    assert len(outbox) == 0


def test_new_activity_is_sent_once(database: StateDatabase) -> None:
    line = ScriptedLine(set())
    sender = sender_of(line, database)
    shared_state = SharedState(database)
    shared_state.set_activity(Activity("a", "training", 0, 3, os.getpid()))
    sender.turn()
    sender.turn()  # renews the lease
    shared_state.end_activity("a")
    sender.turn()
    sender.turn()
    assert line.calls == 3


def test_sender_backs_off(database: StateDatabase) -> None:
    outbox = Outbox(database)
    outbox.add("t", None, {})
    line = ScriptedLine(set())
    sender = sender_of(line, database)
    line.error = ServerUnavailable("away")
    assert 0.7 < sender.turn() <= 1 < 1.4 < sender.turn() <= 2
    assert 1.4 < sender.turn() <= 2, "the line opens again by itself, so it is soon tried again"
    line.error = Busy("slow down", 17.0)
    assert sender.turn() == 17.0
    assert len(outbox) == 1
