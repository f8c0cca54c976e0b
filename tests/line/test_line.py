"""One line without a socket: the order of its messages, and when the site ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import OperationalError

from fedcore.formats.line_bodies import Interval
from fedcore.formats.line_messages import (
    HELLO_AGAIN,
    MALFORMED,
    MAX_MESSAGE_BYTES,
    REPLACED,
    REVOKED,
    TOO_MUCH,
    Message,
    body_of,
    encode,
)
from tests.conftest import Enrolled
from tests.line.lines import BOOT, Device, frame, hello, on_line, opened_by, with_batches
from webapp.devices import models
from webapp.jobs.lifecycle import enrolment
from webapp.line import batches
from webapp.line import line as line_module
from webapp.line.batches import Batches
from webapp.line.frames import Received
from webapp.line.opening import OpenedLine
from webapp.telemetry.models import Sample

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

AT = "2026-03-01T12:00:00Z"


@pytest.fixture
def pi(enrolled_device: Callable[..., Enrolled]) -> Enrolled:
    return enrolled_device()


def samples(number: int, *numbers: int) -> bytes:
    batch = [{"seq": seq, "at": AT, "values": {"loss": 1.0}} for seq in numbers]
    return frame(number, "measurements", {"samples": batch})


def test_frames_are_answered_or_acknowledged(pi: Enrolled) -> None:
    (answer, interval, ack), code = on_line(
        opened_by(pi), hello(), samples(2, 1), frame(3, "health", {"disk_free_bytes": 7})
    )
    body = json.loads(bytes(answer.body))
    assert (answer.re, answer.status, body["device_id"]) == (1, 200, pi.device.pk)
    assert (interval.re, interval.status, interval.ack) == (2, 200, None)
    assert json.loads(bytes(interval.body)) == {"interval_s": body["interval_s"]}
    assert (ack.ack, ack.re) == (3, None)
    assert code == 0
    assert Sample.objects.count() == 1


def test_refused_frame_leaves_the_line_open(pi: Enrolled) -> None:
    wrong = frame(2, "measurements", {"samples": "none"})
    answers, code = on_line(opened_by(pi), hello(), wrong, samples(3, 1))
    assert [(item.re, item.status) for item in answers[1:2]] == [(2, 400)]
    assert "$.samples" in json.loads(bytes(answers[1].body))["detail"]
    assert (answers[2].re, answers[2].status, code) == (3, 200, 0)


def test_unknown_kind_is_refused(pi: Enrolled) -> None:
    answers, code = on_line(opened_by(pi), hello(), frame(2, "teleport"))
    assert (answers[1].re, answers[1].status, code) == (2, 400, 0)


def test_frame_before_hello_ends_the_line(pi: Enrolled) -> None:
    assert on_line(opened_by(pi), samples(1, 1)) == ([], HELLO_AGAIN)
    assert not Sample.objects.exists()


def test_refused_hello_is_no_hello(pi: Enrolled) -> None:
    answers, code = on_line(opened_by(pi), hello(boot_id=""), samples(2, 1))
    assert ([item.status for item in answers], code) == ([400], HELLO_AGAIN)


@pytest.mark.parametrize("numbers", [(2,), (1, 1), (1, 3), (1, 2, 2)])
def test_frame_out_of_order_ends_the_line(pi: Enrolled, numbers: tuple[int, ...]) -> None:
    answers, code = on_line(opened_by(pi), *(hello(number) for number in numbers))
    assert (len(answers), code) == (len(numbers) - 1, MALFORMED)


MALFORMED_MESSAGES = {
    "no JSON": b"{",
    "nothing": b"",
    "no object": b"[]",
    "no part": b"{}",
    "a fraction as number": b'{"n": 1.5, "kind": "hello"}',
    "number zero": b'{"n": 0, "kind": "hello"}',
    "NUL": b'{"n": 1, "kind": "fail", "body": {"reason": "a\\u0000b"}}',
    "no UTF-8": b'{"n": 1, "kind": "\xff"}',
    "one byte too many": b'{"ack": 1' + b" " * (MAX_MESSAGE_BYTES - 9) + b"}",
}


@pytest.mark.parametrize("case", MALFORMED_MESSAGES)
def test_malformed_message_ends_the_line(pi: Enrolled, case: str) -> None:
    answers, code = on_line(opened_by(pi), hello(), MALFORMED_MESSAGES[case])
    assert (len(answers), code) == (1, MALFORMED)


def test_longest_message_is_read(pi: Enrolled) -> None:
    longest = b'{"ack": 1' + b" " * (MAX_MESSAGE_BYTES - 10) + b"}"
    assert len(longest) == MAX_MESSAGE_BYTES
    answers, code = on_line(opened_by(pi), hello(), longest)
    assert (len(answers), code) == (1, 0)


def test_acknowledgements_are_not_answered(pi: Enrolled) -> None:
    ack = encode(Message(ack=4))
    answers, code = on_line(opened_by(pi), hello(), ack, ack)
    assert (len(answers), code) == (1, 0)


def test_older_line_is_void(pi: Enrolled) -> None:
    older = opened_by(pi)
    on_line(older, hello())
    newer = opened_by(pi)
    assert on_line(older, hello(boot_id="boot-0")) == ([], REPLACED)
    assert models.Device.objects.get().boot_id == BOOT
    assert on_line(newer, hello())[1] == 0


def test_revocation_voids_the_line(pi: Enrolled) -> None:
    line = opened_by(pi)
    enrolment.revoke(pi.device, None)
    assert on_line(line, hello()) == ([], REVOKED)


def test_removed_device_counts_as_revoked(pi: Enrolled) -> None:
    line = opened_by(pi)
    pi.device.delete()
    assert on_line(line, hello()) == ([], REVOKED)


def test_frame_during_an_outage_is_repeated(pi: Enrolled, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, calls = batches.apply_frames, list[int]()

    def flaky(received: Sequence[Received]) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OperationalError("the database is away")
        return apply(received)

    monkeypatch.setattr(batches, "apply_frames", flaky)
    answers, code = on_line(opened_by(pi), hello(), samples(2, 1, 2), samples(3, 1, 2))
    assert (answers[1].re, answers[1].status) == (2, 503)
    assert (answers[2].re, answers[2].status, code) == (3, 200, 0)
    assert Sample.objects.count() == 2


def test_answer_above_the_limit_is_413(pi: Enrolled, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Message(re=1, body=body_of({"x": "y" * MAX_MESSAGE_BYTES}))
    monkeypatch.setattr(batches, "apply_frames", lambda _: [large])
    (answer,), code = on_line(opened_by(pi), hello())
    assert (answer.re, answer.status, code) == (1, 413, 0)


def test_pushed_frames_are_numbered(pi: Enrolled) -> None:
    device = Device()

    async def run(batches: Batches) -> None:
        line = device.line(OpenedLine(pi.device.pk, 1), batches)
        await asyncio.gather(*(line.push("interval", Interval(3.0)) for _ in range(100)))

    with_batches(run)
    assert device.frames == [("interval", number) for number in range(1, 101)]
    assert device.code == 0, "a hundred frames at once are no reason to cut a device that reads"


def test_device_that_does_not_read_is_cut(pi: Enrolled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "PUSH_TIMEOUT_S", 0.05)
    device = Device()

    async def run(batches: Batches) -> None:
        device.reads = asyncio.Event()
        line = device.line(OpenedLine(pi.device.pk, 1), batches)
        push = asyncio.create_task(line.push("interval", Interval(3.0)))
        await asyncio.sleep(0.2)
        device.reads.set()
        await push

    with_batches(run)
    assert device.code == TOO_MUCH


def test_queue_for_a_slow_reader_is_bounded(pi: Enrolled) -> None:
    device = Device()

    async def run(batches: Batches) -> None:
        device.reads = asyncio.Event()
        line = device.line(OpenedLine(pi.device.pk, 1), batches)
        count = line_module.MAX_PUSHING + 1
        pushes = [asyncio.create_task(line.push("interval", Interval(3.0))) for _ in range(count)]
        await asyncio.sleep(0.05)
        device.reads.set()
        await asyncio.gather(*pushes)

    with_batches(run)
    assert device.code == TOO_MUCH
