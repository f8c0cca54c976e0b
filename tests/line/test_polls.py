"""The line by long poll on a real site."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from fedcore.formats.line_bodies import POLL_ANSWER
from fedcore.formats.line_messages import (
    MAX_POLL_BYTES,
    POLL_PATH,
    REPLACED,
    Message,
    body_of,
    decode,
    encode,
)
from tests.conftest import Enrolled
from tests.federation import Federation, phase_of
from tests.line.clients import DATASETS, MANY_OPENINGS, LineClient, wait_until
from tests.line.site import WEB, Site
from webapp.devices import device_messages
from webapp.devices.models import Device
from webapp.jobs.lifecycle import enrolment
from webapp.telemetry.models import Sample

pytestmark = pytest.mark.slow

OTHER = "other"
LATE_S = 1.0  # what is there is sent within this time
Frame = tuple[str, Mapping[str, Any]]


class PollClient:
    """A device that polls; ``line`` is the number that the next poll names."""

    def __init__(self, site: Site, token: str) -> None:
        self.site, self.token, self.line, self.boot_id = site, token, 0, ""

    def post(self, web: str = WEB, **values: Any) -> httpx.Response:
        headers = {"Authorization": f"Device {self.token}"} if self.token else {}
        values.setdefault("boot_id", self.boot_id)
        return httpx.post(self.url(web), json=values, headers=headers, timeout=60)

    def url(self, web: str = WEB) -> str:
        return f"http://127.0.0.1:{self.site.ports[web]}{POLL_PATH}"

    def poll(self, *frames: Frame, web: str = WEB, **values: Any) -> list[Message]:
        """Poll with these frames, numbered from 1; returns the site's messages."""
        messages = [
            json.loads(encode(Message(n=number, kind=kind, body=body_of(dict(body)))))
            for number, (kind, body) in enumerate(frames, start=1)
        ]
        response = self.post(web, line=self.line, messages=messages, **values)
        assert response.status_code == 200, response.text
        answer = POLL_ANSWER.decode(response.content)
        self.line = answer.line
        return [decode(bytes(raw)) for raw in answer.messages]

    def hello(self, boot_id: str = "boot-1", **values: Any) -> list[Message]:
        self.boot_id = boot_id
        frame = ("hello", {"boot_id": boot_id, "datasets": DATASETS})
        answer, *rest = self.poll(frame, **values)
        assert (answer.re, answer.status) == (1, 200), bytes(answer.body)
        return rest


def offers(messages: list[Message]) -> list[str]:
    bodies = [json.loads(bytes(item.body))["body"] for item in messages if item.kind == "offer"]
    return [json.loads(body)["assignment"] for body in bodies]


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and reason of a problem document."""
    assert response.headers["Content-Type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    return response.status_code, document["detail"]


@pytest.fixture
def pi(site: Site, enrolled_device: Callable[..., Enrolled]) -> PollClient:
    return PollClient(site, enrolled_device().api_token)


@pytest.fixture
def other(site: Site) -> Iterator[str]:
    """A second web process."""
    site.start_web(OTHER)
    yield OTHER
    site.stop(OTHER)


def during(poll: Callable[[], list[Message]], act: Callable[[], object]) -> list[Message]:
    """What a poll is answered that waits while ``act`` runs; within LATE_S of its end."""
    result: list[list[Message]] = []
    waiting = threading.Thread(target=lambda: result.append(poll()))
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive(), "the poll does not wait"
    act()
    waiting.join(LATE_S)
    assert result, "the poll still waits"
    return result[0]


def test_hello_by_poll_begins_a_line(pi: PollClient) -> None:
    begin = time.monotonic()
    assert pi.hello(wait_s=20) == []
    assert time.monotonic() - begin < 10, "what is answered does not wait"
    device = Device.objects.get()
    assert (device.line_epoch, device.boot_id, device.presence) == (pi.line, "boot-1", "online")


def test_work_by_polls_alone(site: Site, federation: Federation) -> None:
    kitchen = federation.device("pi-kitchen")
    pi = PollClient(site, kitchen.enrolled.api_token)
    pi.hello(kitchen.boot_id)
    federation.launch()
    (assignment,) = offers(pi.poll(wait_s=20))
    (answer,) = pi.poll(("accept", {"assignment": assignment}), queued=[assignment])
    assert json.loads(bytes(answer.body))["task"] == "evaluate"
    progress = ("progress", {"assignment": assignment, "phase": "training"})
    report = {"assignment": assignment, "update": None, "examples": 6, "metrics": {"loss": 1.0}}
    assert [item.ack for item in pi.poll(progress, ("report", report))] == [1, 2]
    assert phase_of(assignment) == "reported"


def test_offer_arrives_in_a_waiting_poll(site: Site, federation: Federation) -> None:
    kitchen = federation.device("pi-kitchen")
    pi = PollClient(site, kitchen.enrolled.api_token)
    pi.hello(kitchen.boot_id)
    messages = during(lambda: pi.poll(wait_s=20), federation.launch)
    assert [item.n for item in messages] == [1]
    assert offers(messages) == kitchen_offers(federation)


def kitchen_offers(federation: Federation) -> list[str]:
    from webapp.jobs.models import Assignment

    rows = Assignment.objects.filter(device__name="pi-kitchen", phase="offered")
    return [str(pk) for pk in rows.order_by("offered_at").values_list("pk", flat=True)]


def test_queued_offers_are_not_sent_again(site: Site, federation: Federation) -> None:
    kitchen = federation.device("pi-kitchen")
    for _ in range(3):
        federation.launch()
    expected = kitchen_offers(federation)
    pi = PollClient(site, kitchen.enrolled.api_token)
    assert offers(pi.hello(kitchen.boot_id)) == expected
    assert offers(pi.poll(wait_s=20)) == expected, "an answer may be lost"
    assert offers(pi.poll(queued=expected[:1], wait_s=20)) == expected[1:]
    assert pi.poll(queued=expected) == []


def test_poll_ends_after_its_wait(pi: PollClient) -> None:
    pi.hello()
    for wait_s in (0.0, 1.5):
        begin = time.monotonic()
        assert pi.poll(wait_s=wait_s) == []
        assert wait_s <= time.monotonic() - begin < wait_s + LATE_S


def test_each_poll_numbers_from_1(pi: PollClient) -> None:
    sample = {"seq": 1, "at": "2026-03-01T12:00:00Z", "values": {"loss": 1.5}}
    measurements = ("measurements", {"samples": [sample]})
    pi.hello()
    device_id = Device.objects.get().pk
    for _ in range(2):
        assert [item.re for item in pi.poll(measurements, measurements)] == [1, 2]
    for _ in range(2):
        messages = during(
            lambda: pi.poll(wait_s=20), lambda: device_messages.set_interval(device_id, 2.0)
        )
        assert [(item.n, item.kind) for item in messages] == [(1, "interval")]
    assert Sample.objects.count() == 1
    second = {"n": 2, "kind": "health", "body": {"disk_free_bytes": 7}}
    status, _ = refusal(pi.post(line=pi.line, messages=[second]))
    assert status == 400
    assert Device.objects.get().health == {}


def test_newer_line_voids_the_polls(site: Site, pi: PollClient) -> None:
    newer = PollClient(site, pi.token)
    pi.hello()
    assert during(lambda: pi.poll(wait_s=20), newer.hello) == [], "it ends without a message"
    for frames in ([], [{"n": 1, "kind": "health", "body": {"disk_free_bytes": 7}}]):
        status, text = refusal(pi.post(line=pi.line, messages=frames))
        assert (status, "newer line" in text) == (409, True)
    assert Device.objects.get().health == {}
    pi.line = 0
    pi.hello()
    assert refusal(newer.post(line=newer.line))[0] == 409


def test_poll_of_another_boot_is_refused(pi: PollClient) -> None:
    """As after a restore, when the site gives a number for the second time."""
    pi.hello()
    assert refusal(pi.post(line=pi.line, boot_id="boot-2"))[0] == 409
    assert pi.poll() == []


def test_frames_reach_the_site_beside_a_waiting_poll(site: Site, pi: PollClient) -> None:
    """The waiting poll goes on, and gets what the site sends."""
    pi.hello()
    device = Device.objects.get()
    beside = PollClient(site, pi.token)
    beside.line, beside.boot_id = pi.line, pi.boot_id

    def act() -> None:
        assert beside.poll(("health", {"disk_free_bytes": 7})) != []
        device_messages.set_interval(device.pk, 2.0)

    messages = during(lambda: pi.poll(wait_s=20), act)
    assert [(item.n, item.kind) for item in messages] == [(1, "interval")]
    assert Device.objects.get().health["disk_free_bytes"] == 7


def test_frame_before_hello_is_refused(pi: PollClient) -> None:
    frame = {"n": 1, "kind": "health", "body": {"disk_free_bytes": 7}}
    assert refusal(pi.post(messages=[frame])) == (409, "say hello first")


@pytest.mark.parametrize("token", ["", "nonsense"])
@pytest.mark.parametrize("line", [0, 1])
def test_poll_without_credential(site: Site, token: str, line: int) -> None:
    status, text = refusal(PollClient(site, token).post(line=line))
    assert (status, "enrol the device again" in text) == (401, True)


def test_revocation_ends_the_polls(pi: PollClient) -> None:
    pi.hello()
    device = Device.objects.get()
    during(lambda: pi.poll(wait_s=20), lambda: enrolment.revoke(device, None))
    for line in (0, pi.line):
        assert refusal(pi.post(line=line))[0] == 401


def test_largest_poll_passes_one_more_not(pi: PollClient) -> None:
    pi.hello()
    start = f'{{"line": {pi.line}, "boot_id": "{pi.boot_id}"'
    largest = start + " " * (MAX_POLL_BYTES - len(start) - 1) + "}"
    headers = {"Authorization": f"Device {pi.token}"}
    assert httpx.post(pi.url(), content=largest, headers=headers, timeout=30).status_code == 200
    status, text = refusal(httpx.post(pi.url(), content=largest + " ", headers=headers))
    assert (status, str(MAX_POLL_BYTES) in text) == (413, True)


@pytest.mark.parametrize(
    "values",
    [
        {"line": -1},
        {"wait_s": 26},
        {"wait_s": "1"},
        {"queued": ["x"]},
        {"messages": [{"n": 1}] * 101},
        {"messages": ["x"]},
        {"messages": [{}]},
    ],
)
def test_invalid_polls(pi: PollClient, values: dict[str, Any]) -> None:
    pi.hello()
    assert refusal(pi.post(**{"line": pi.line, **values}))[0] == 400
    assert httpx.post(pi.url(), content=b"{", headers={}).status_code == 400


def test_polls_on_two_processes_in_turn(site: Site, other: str, federation: Federation) -> None:
    kitchen = federation.device("pi-kitchen")
    pi = PollClient(site, kitchen.enrolled.api_token)
    pi.hello(kitchen.boot_id)
    line = pi.line
    messages = during(lambda: pi.poll(web=other, wait_s=20), federation.launch)
    (assignment,) = offers(messages)
    (answer,) = pi.poll(("accept", {"assignment": assignment}), web=WEB)
    assert answer.status == 200, bytes(answer.body)
    progress = ("progress", {"assignment": assignment, "phase": "training"})
    assert [item.ack for item in pi.poll(progress, web=other)] == [1]
    assert (phase_of(assignment), pi.line) == ("training", line)


def test_newest_line_wins_across_processes(site: Site, other: str, pi: PollClient) -> None:
    with LineClient(site, pi.token, other) as socket:
        socket.hello()
        pi.hello()
        assert socket.close_code() == REPLACED
        wait_until(lambda: Device.objects.get().presence == "online")

    def open_socket() -> None:
        with LineClient(site, pi.token, other) as socket:
            socket.hello()

    assert during(lambda: pi.poll(wait_s=20), open_socket) == []
    assert refusal(pi.post(line=pi.line))[0] == 409


def test_polled_lines_that_begin_too_often(
    site: Site, pi: PollClient, enrolled_device: Callable[..., Enrolled]
) -> None:
    """The newest line goes on, and so do other devices."""
    for _ in range(MANY_OPENINGS):
        response = pi.post()
        if response.status_code != 200:
            break
        pi.line = response.json()["line"]
    assert refusal(response)[0] == 429
    assert pi.poll() == []
    PollClient(site, enrolled_device("pi-porch").api_token).hello()
