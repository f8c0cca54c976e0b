"""What travels on a line of a real site, in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from fedcore.formats.line_messages import (
    HELLO_AGAIN,
    MALFORMED,
    MAX_MESSAGE_BYTES,
    REPLACED,
    REVOKED,
)
from tests.conftest import Enrolled
from tests.device import SCORES
from tests.federation import Federation, phase_of
from tests.line.clients import LineClient, wait_until
from tests.line.site import Site
from webapp.devices import device_messages
from webapp.devices.models import Device
from webapp.jobs.lifecycle import enrolment
from webapp.telemetry.models import Sample

pytestmark = pytest.mark.slow

SAMPLES = [{"seq": 1, "at": "2026-03-01T12:00:00Z", "values": {"loss": 1.5}}]


@pytest.fixture
def pi(enrolled_device: Callable[..., Enrolled]) -> Enrolled:
    return enrolled_device()


def test_evaluation_from_offer_to_report(site: Site, federation: Federation) -> None:
    kitchen = federation.device("pi-kitchen")
    with LineClient(site, kitchen.enrolled.api_token) as line:
        line.hello(kitchen.boot_id)
        job = federation.launch()
        offer = line.frame("offer")
        assert (offer["kind"], offer["device"]) == ("work", kitchen.device.pk)
        assignment = offer["assignment"]
        answer = line.call("accept", assignment=assignment)
        work = json.loads(bytes(answer.body))
        assert (answer.status, work["assignment"], work["task"]) == (200, assignment, "evaluate")
        for phase in ("training", "uploading"):
            number = line.send("progress", assignment=assignment, phase=phase)
            assert line.answer(number).ack == number
            assert phase_of(assignment) == phase
        report = line.call(
            "report", assignment=assignment, update=None, examples=6, metrics={**SCORES}
        )
        assert report.ack, bytes(report.body)
        assert phase_of(assignment) == "reported"
        federation.reconcile()
        assert federation.round(job).number == 1


def test_answer_is_also_there_by_http(site: Site, federation: Federation) -> None:
    """Where it does not fit into a message."""
    kitchen = federation.device("pi-kitchen")
    with LineClient(site, kitchen.enrolled.api_token) as line:
        line.hello(kitchen.boot_id)
        federation.launch()
        assignment = line.frame("offer")["assignment"]
        work = json.loads(bytes(line.call("accept", assignment=assignment).body))
    url = f"http://127.0.0.1:{site.ports['web']}/api/v1/device/assignments/{assignment}/"
    headers = {"Authorization": f"Device {kitchen.enrolled.api_token}"}
    assert httpx.get(url, headers=headers, timeout=30).json() == work


def test_frames_are_answered_in_order(site: Site, pi: Enrolled) -> None:
    with LineClient(site, pi.api_token) as line:
        first = line.send("hello", boot_id="b")
        numbers = [line.send("measurements", samples=SAMPLES) for _ in range(30)]
        assert line.answer(first).re == 1
        assert [line.answer(number).re for number in numbers] == numbers
    assert Sample.objects.count() == 1


def test_open_offers_follow_each_hello(site: Site, federation: Federation) -> None:
    kitchen = federation.device("pi-kitchen")
    federation.launch()
    (offer,) = kitchen_offers(federation)
    for _ in range(2):
        with LineClient(site, kitchen.enrolled.api_token) as line:
            line.hello(kitchen.boot_id)
            assert line.frame("offer")["assignment"] == offer


def kitchen_offers(federation: Federation) -> list[str]:
    from webapp.jobs.models import Assignment

    return [
        str(pk) for pk in Assignment.objects.filter(phase="offered").values_list("pk", flat=True)
    ]


def test_cancellation_and_interval_arrive(site: Site, pi: Enrolled) -> None:
    with LineClient(site, pi.api_token) as line:
        line.hello()
        assert device_messages.cancel(pi.device.pk, "an-assignment", "the job was paused")
        assert device_messages.set_interval(pi.device.pk, 1.5)
        cancel = line.frame("cancel")
        assert (cancel["assignment"], cancel["reason"]) == ("an-assignment", "the job was paused")
        assert line.frame("interval") == {"interval_s": 1.5}


def test_foreign_work_is_cancelled(site: Site, pi: Enrolled) -> None:
    key = "3d307612-6f86-4f5a-b76f-2b517e81b1cd"
    with LineClient(site, pi.api_token) as line:
        line.hello()
        line.call("measurements", activity={"assignment": key, "phase": "training"})
        assert line.frame("cancel")["assignment"] == key


def test_newer_line_replaces_the_older(site: Site, pi: Enrolled) -> None:
    with LineClient(site, pi.api_token) as older, LineClient(site, pi.api_token) as newer:
        newer.hello()
        assert older.close_code() == REPLACED
        assert newer.call("measurements").succeeded
        assert Device.objects.get().presence == "online"


def test_revocation_ends_the_line(site: Site, pi: Enrolled) -> None:
    with LineClient(site, pi.api_token) as line:
        line.hello()
        enrolment.revoke(pi.device, None)
        assert line.close_code() == REVOKED


@pytest.mark.parametrize(
    "message",
    ["{", b"\x00\xff", "", '{"n": 3, "kind": "measurements"}', '{"n": 1, "kind": "measurements"}'],
)
def test_malformed_message_ends_the_line(site: Site, pi: Enrolled, message: str | bytes) -> None:
    with LineClient(site, pi.api_token) as line:
        line.hello()
        line.socket.send(message)
        assert line.close_code() == MALFORMED
    wait_until(lambda: Device.objects.get().disconnected_at)


def test_frame_before_hello_ends_the_line(site: Site, pi: Enrolled) -> None:
    with LineClient(site, pi.api_token) as line:
        line.send("measurements")
        assert line.close_code() == HELLO_AGAIN


@pytest.mark.parametrize("fragments", [1, 7])
def test_longest_message_passes_one_more_not(site: Site, pi: Enrolled, fragments: int) -> None:
    """Also in fragments of a WebSocket message."""
    start = '{"n": 2, "kind": "measurements"'
    longest = start + " " * (MAX_MESSAGE_BYTES - len(start) - 1) + "}"
    size = -(-(MAX_MESSAGE_BYTES + 1) // fragments)

    def send(line: LineClient, message: str) -> None:
        parts = [message[at : at + size] for at in range(0, len(message), size)]
        line.socket.send(parts if fragments > 1 else message)

    with LineClient(site, pi.api_token) as line:
        line.hello()
        send(line, longest)
        assert line.answer(2).succeeded
        send(line, longest.replace('"n": 2', '"n": 3') + " ")
        assert line.close_code() == MALFORMED


def test_message_beyond_every_limit(site: Site, pi: Enrolled) -> None:
    with LineClient(site, pi.api_token) as line:
        line.hello()
        line.socket.send("x" * 300_000)
        assert line.close_code() == 1009
