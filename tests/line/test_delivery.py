"""Messages of the site's broker, and what a process reads anew after it did not listen."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from django.db import OperationalError

from fedcore.formats.line_messages import REPLACED, REVOKED
from tests.conftest import Enrolled
from tests.device import Pi
from tests.federation import Federation
from tests.line.lines import BOOT, Device, hello, opened_by, with_batches
from webapp.devices import device_messages
from webapp.devices.device_messages import DeviceMessage
from webapp.jobs.lifecycle import enrolment
from webapp.line import delivery as delivery_module
from webapp.line.batches import Batches
from webapp.line.delivery import Delivery, missed_messages, open_offers
from webapp.line.open_lines import OpenLines
from webapp.line.opening import OpenedLine, open_line

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

Act = Callable[[Delivery], Any]


def deliver(line: OpenedLine, act: Act) -> Device:
    """What a device on a line gets, and how its line ends, when ``act`` is done."""
    device = Device()

    async def run(batches: Batches) -> None:
        lines = OpenLines(batches)
        own = device.line(line, batches)
        await own.receive(hello())
        device.sent.clear()
        lines.add(own)
        result = act(Delivery(lines, batches))
        if result is not None:
            await result
        await asyncio.sleep(0.05)

    with_batches(run)
    return device


def offered(device: Device) -> list[str]:
    bodies = [json.loads(json.loads(bytes(message.body))["body"]) for message in device.sent]
    return [body["assignment"] for body in bodies if body["kind"] == "work"]


@pytest.fixture
def pi(enrolled_device: Callable[..., Enrolled]) -> Enrolled:
    return enrolled_device()


def test_signed_messages_become_frames(pi: Enrolled, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[DeviceMessage] = []
    monkeypatch.setattr(device_messages, "publisher", published.extend)
    device_messages.offer([(pi.device.pk, "an-assignment"), (pi.device.pk + 1, "another's")])
    device_messages.cancel(pi.device.pk, "an-assignment", "paused")
    device_messages.set_interval(pi.device.pk, 2.0)
    device = deliver(opened_by(pi), lambda delivery: delivery.deliver(published))
    assert device.frames == [("offer", 1), ("cancel", 2), ("interval", 3)]
    assert bytes(device.sent[0].body) == msgspec.json.encode(published[0].envelope)
    assert json.loads(bytes(device.sent[2].body)) == {"interval_s": 2.0}


@pytest.mark.parametrize(
    ("kind", "epoch", "code"),
    [
        (device_messages.REVOKED, 0, REVOKED),
        (device_messages.OPENED, 2, REPLACED),
        (device_messages.OPENED, 1, 0),
        ("of a later version", 0, 0),
    ],
)
def test_messages_that_end_a_line(pi: Enrolled, kind: str, epoch: int, code: int) -> None:
    message = DeviceMessage(kind, pi.device.pk, epoch=epoch)
    device = deliver(opened_by(pi), lambda delivery: delivery.deliver([message]))
    assert (device.code, device.sent) == (code, [])


def test_offers_are_sent_again_in_their_order(federation: Federation) -> None:
    (kitchen, porch) = federation.devices("pi-kitchen", "pi-porch")
    for _ in range(3):
        federation.launch()
    expected = kitchen.offers()
    line = opened_by(kitchen.enrolled)
    device = deliver(line, lambda delivery: delivery.send_open_offers(line.device_id))
    assert offered(device) == expected
    assert len(open_offers([kitchen.device.pk, porch.device.pk])) == 6
    kitchen.boot_id = BOOT
    assert kitchen.accept(expected[0]).status_code == 200
    assert len(open_offers([kitchen.device.pk])) == 2


def test_missed_offers_are_caught_up(federation: Federation) -> None:
    kitchen: Pi = federation.device("pi-kitchen")
    federation.launch()
    device = deliver(opened_by(kitchen.enrolled), lambda delivery: delivery.catch_up())
    assert (offered(device), device.code) == (kitchen.offers(), 0)


@pytest.mark.parametrize("missed", ["revocation", "newer line"])
def test_missed_end_is_caught_up(pi: Enrolled, missed: str) -> None:
    def act(delivery: Delivery) -> Any:
        async def run() -> None:
            if missed == "revocation":
                await asyncio.to_thread(in_thread, lambda: enrolment.revoke(pi.device, None))
            else:
                await asyncio.to_thread(in_thread, lambda: open_line(pi.api_token))
            await delivery.catch_up()

        return run()

    code = REVOKED if missed == "revocation" else REPLACED
    assert deliver(opened_by(pi), act).code == code


def in_thread(call: Callable[[], object]) -> None:
    from django.db import connection

    try:
        call()
    finally:
        connection.close()


def test_catching_up_queries_are_constant(
    enrolled_device: Callable[..., Enrolled], django_assert_num_queries: Any
) -> None:
    pks = [enrolled_device(f"pi-{number}").device.pk for number in range(20)]
    with django_assert_num_queries(2):
        assert len(missed_messages(pks)) == 20


def test_database_outage_ends_no_line(pi: Enrolled, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> list[DeviceMessage]:
        raise OperationalError("away")

    monkeypatch.setattr(delivery_module, "open_offers", away)
    line = opened_by(pi)
    device = deliver(line, lambda delivery: delivery.send_open_offers(line.device_id))
    assert (device.code, device.sent) == (0, [])


def test_unreadable_message_is_skipped(pi: Enrolled, caplog: pytest.LogCaptureFixture) -> None:
    item = {"type": "message", "data": b'[{"kind": 7}]'}
    device = deliver(opened_by(pi), lambda delivery: delivery._handle(item))
    assert "cannot be read" in caplog.text
    assert device.code == 0


def test_silent_broker_is_given_up(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """It accepts the connection and does not answer: the next attempt may reach another."""
    monkeypatch.setattr(delivery_module, "ANSWER_S", 0.2)

    async def run(batches: Batches) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Delivery(OpenLines(batches), batches)._listen_once(), 20)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://:secret@127.0.0.1:{silent.getsockname()[1]}/0"
        begin = time.monotonic()
        with_batches(run)
    assert time.monotonic() - begin < 10
