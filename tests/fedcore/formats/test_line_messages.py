"""Messages and bodies of the line: what is read, and what is refused."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.formats import line_bodies as bodies
from fedcore.formats.line_messages import (
    MAX_MESSAGE_BYTES,
    Message,
    MessageError,
    agreed_version,
    body_of,
    decode,
    encode,
    subprotocols,
)

ASSIGNMENT = uuid.UUID(int=7)


def test_frame_has_the_documented_form() -> None:
    body = body_of(bodies.Progress(ASSIGNMENT, "training"))
    data = encode(Message(n=3, kind="progress", body=body))
    assert json.loads(data) == {
        "n": 3,
        "kind": "progress",
        "body": {"assignment": str(ASSIGNMENT), "phase": "training"},
    }


def test_answer_and_acknowledgement_have_the_documented_forms() -> None:
    refusal = body_of(bodies.RefusalBody("the assignment is over"))
    answer = encode(Message(re=3, status=409, body=refusal))
    assert json.loads(answer) == {
        "re": 3,
        "status": 409,
        "body": {"detail": "the assignment is over"},
    }
    assert json.loads(encode(Message(ack=3))) == {"ack": 3}


@given(
    st.builds(
        bodies.ReportBody,
        assignment=st.uuids(),
        update=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
        examples=st.integers(1, 2**31 - 1),
        bytes_up=st.integers(0, 2**62),
    )
)
def test_report_survives_the_way(report: bodies.ReportBody) -> None:
    message = decode(encode(Message(n=1, kind="report", body=body_of(report))))
    arrived = bodies.read_up(message.kind, message.body)
    assert isinstance(arrived, bodies.ReportBody)
    assert (arrived.assignment, arrived.update) == (report.assignment, report.update)
    assert (arrived.examples, arrived.bytes_up) == (report.examples, report.bytes_up)
    assert arrived.read_metrics() == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"null",
        b'{"n": 0, "kind": "hello"}',
        b'{"n": 9007199254740992, "kind": "hello"}',
        b'{"n": true, "kind": "hello"}',
        b'{"n": 1.5, "kind": "hello"}',
        b'{"n": 1e400, "kind": "hello"}',
        b'{"n": 1, "body": NaN}',
        b'{"n": 1, "kind": "refuse", "body": {"reason": "a\\u0000b"}}',
        b'{"n": 1, "kind": "refuse", "body": {"reason": "\\ud800"}}',
        b'{"re": 1, "status": 600}',
        b'{"re": 1, "status": 100}',
        b'{"n": 1, "kind": "\xff"}',
        b"[" * 60_000,
        b'{"n": 1, "kind": "hello", "body": ' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"}",
    ],
)
def test_malformed_message_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        message = decode(data)
        bodies.read_up(message.kind, message.body)


def test_size_limit_holds_in_both_directions() -> None:
    room = MAX_MESSAGE_BYTES - len(encode(Message(n=1, kind="x", body=body_of({"a": ""}))))
    full = encode(Message(n=1, kind="x", body=body_of({"a": "b" * room})))
    assert len(full) == MAX_MESSAGE_BYTES
    assert decode(full).n == 1
    with pytest.raises(MessageError, match="65537 bytes"):
        encode(Message(n=1, kind="x", body=body_of({"a": "b" * (room + 1)})))
    with pytest.raises(MessageError, match="65537 bytes"):
        decode(full + b" ")


def _body(**values: Any) -> dict[str, Any]:
    return {"assignment": str(ASSIGNMENT), **values}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("accept", {}),
        ("accept", {"assignment": "not a uuid"}),
        ("progress", _body(phase="reported")),
        ("report", _body(update="0" * 63, examples=1)),
        ("report", _body(update=None, examples=0)),
        ("report", _body(update=None, examples=2**31)),
        ("report", _body(update=None, examples=1, bytes_up=-1)),
        ("fail", _body(reason="x" * 2001)),
        ("fail", _body(reason="x", retryable=1)),
        ("measurements", {"samples": [{"seq": 0, "at": "2026-01-01T00:00:00Z", "values": {}}]}),
        ("measurements", {"samples": [{"seq": 1, "at": "2026-01-01T00:00:00", "values": {}}]}),
        ("measurements", {"samples": [{"seq": 1, "at": "yesterday", "values": {}}]}),
        ("measurements", {"activity": {"step": -1}}),
        ("health", {}),
        ("health", {"disk_free_bytes": 1, "clock_ahead_s": 1e11}),
        ("hello", {"boot_id": ""}),
        ("hello", {"boot_id": "x" * 65}),
        ("offer", {"body": "", "signature": ""}),
        ("from the future", {}),
    ],
)
def test_wrong_body_is_refused(kind: str, body: dict[str, Any]) -> None:
    message = decode(json.dumps({"n": 1, "kind": kind, "body": body}))
    with pytest.raises(MessageError):
        bodies.read_up(message.kind, message.body)


def _hello(**values: Any) -> bodies.Hello:
    message = decode(json.dumps({"n": 1, "kind": "hello", "body": {"boot_id": "a", **values}}))
    hello = bodies.read_up(message.kind, message.body)
    assert isinstance(hello, bodies.Hello)
    return hello


@pytest.mark.parametrize(
    "datasets",
    [
        [{"name": "a", "examples": -1}],
        [{"name": "", "examples": 1}],
        [{"name": "a", "examples": 1}, {"name": "a", "examples": 2}],
        [{"name": str(number), "examples": 1} for number in range(101)],
        [{"name": "a", "examples": 1, "columns": ["x" * 200] * 100}],  # over 20 kB
    ],
)
def test_wrong_datasets_are_refused(datasets: list[dict[str, Any]]) -> None:
    with pytest.raises(MessageError):
        _hello(datasets=datasets).read_datasets()


def test_profile_over_its_limit_is_refused() -> None:
    assert _hello(profile={"cpu": "A76"}).read_profile() == {"cpu": "A76"}
    with pytest.raises(MessageError, match="profile"):
        _hello(profile={"cpu": "x" * 20_000}).read_profile()


def test_unknown_fields_and_later_kinds_are_ignored() -> None:
    message = decode(b'{"n": 1, "kind": "interval", "body": {"interval_s": 2.5, "later": 1}}')
    assert bodies.read_down(message.kind, message.body) == bodies.Interval(2.5)
    assert bodies.read_down("later", message.body) is None


def test_agreed_version_is_the_newest_of_both() -> None:
    assert agreed_version(["edgewise.line.99", *subprotocols()]) == 1
    assert agreed_version(["edgewise.line.99", "chat"]) is None
    assert agreed_version([]) is None
