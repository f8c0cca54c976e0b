"""Parts of the line: backoff, queued offers, the local socket, and Celery's transport."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from kombu.exceptions import ContentDisallowed

from fedcore.errors import ServerRefused, ServerUnavailable, Stopped
from fedcore.formats.line_bodies import Envelope, Hello, UpKind
from fedcore.formats.line_messages import body_of
from tests.agent.conftest import slack
from tests.agent.lines import Recorder, measured, until
from tests.agent.stand_in import API_TOKEN, StandIn
from workers.agent.agent_settings import read_settings
from workers.agent.control.transport import OfferMessage, message_of
from workers.agent.http.tls_errors import EXPIRED, NOT_YET_VALID, WRONG_HOST, certificate_problem
from workers.agent.line.backoff import LineBackoff
from workers.agent.line.device_line import Line
from workers.agent.line.local_client import LineClient
from workers.agent.line.local_messages import Push, StartAnswer
from workers.agent.line.local_server import LocalServer
from workers.agent.line.offers import Offers
from workers.agent.line.opening import line_site
from workers.agent.state import credentials


def test_backoff_of_lines_that_do_not_open() -> None:
    backoff = LineBackoff(jitter=lambda: 0.0)
    assert [backoff.after_refusal() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_healthy_line_is_opened_again_at_once() -> None:
    backoff = LineBackoff(jitter=lambda: 0.0)
    assert [backoff.after_refusal() for _ in range(3)] == [1, 2, 4]
    assert backoff.after_cut(600.0) == 0.0
    assert backoff.after_refusal() == 1, "a healthy line begins anew"


def test_line_that_is_cut_again_and_again_waits() -> None:
    backoff = LineBackoff(jitter=lambda: 0.0)
    assert [backoff.after_cut(0.5) for _ in range(4)] == [0.0, 1, 2, 4]
    assert backoff.after_cut(60.0) == 0.0


def envelope(assignment: str, nonce: str = "n") -> Envelope:
    return Envelope(json.dumps({"assignment": assignment, "nonce": nonce}), "s")


class Worker:
    """Takes the offers that it is handed, without doing them."""

    def __init__(self) -> None:
        self.pushes: list[Push] = []

    @property
    def assignments(self) -> list[str]:
        return [json.loads(push.offer.body)["assignment"] for push in self.pushes]


def test_offers_are_handed_out_one_at_a_time_in_order() -> None:
    offers, worker = Offers(), Worker()
    for name in "abc":
        offers.add(envelope(name))
    offers.attach(worker.pushes.append)
    assert worker.assignments == ["a"]
    offers.finished(worker.pushes[-1].tag)
    offers.finished(worker.pushes[0].tag)  # again: no effect
    assert worker.assignments == ["a", "b"] and len(offers) == 2


def test_newer_offer_replaces_a_queued_one() -> None:
    offers, worker = Offers(), Worker()
    offers.add(envelope("a"))
    offers.attach(worker.pushes.append)
    offers.add(envelope("b", "old"))
    offers.add(envelope("b", "new"))
    offers.finished(worker.pushes[-1].tag)
    assert worker.assignments == ["a", "b"] and "new" in worker.pushes[-1].offer.body
    offers.add(envelope("b", "next attempt"))  # while the one before is being ended
    offers.finished(worker.pushes[-1].tag)
    assert "next attempt" in worker.pushes[-1].offer.body


@pytest.mark.parametrize(("accepted", "handed"), [(False, ["a", "a"]), (True, ["a", "b"])])
@pytest.mark.parametrize("end", ["worker", "training process"])
def test_offer_of_a_dead_process(accepted: bool, handed: list[str], end: str) -> None:
    offers, worker = Offers(), Worker()
    offers.attach(worker.pushes.append)
    offers.add(envelope("a"))
    offers.add(envelope("b"))
    if accepted:
        offers.accepted("a")
    if end == "worker":
        offers.detach()
        offers.attach(worker.pushes.append)
    else:
        offers.again(worker.pushes[-1].tag)
    assert worker.assignments == handed


def test_offer_that_kills_every_process_is_dropped() -> None:
    offers, worker = Offers(), Worker()
    offers.attach(worker.pushes.append)
    offers.add(envelope("a"))
    for _ in range(10):
        offers.again(worker.pushes[-1].tag)
    assert len(offers) == 0 and len(worker.pushes) < 10


def test_unreadable_offers_are_left_to_the_training_process() -> None:
    offers, worker = Offers(), Worker()
    offers.attach(worker.pushes.append)
    for body in ("[]", "no json", '{"assignment": 3}'):
        offers.add(Envelope(body, "s"))
    assert len(offers) == 3
    for number in itertools.count():
        if number < len(worker.pushes):
            offers.finished(worker.pushes[number].tag)
        else:
            break
    assert [push.offer.body for push in worker.pushes] == ["[]", "no json", '{"assignment": 3}']


@pytest.mark.parametrize(
    "change",
    [{"headers": {"compression": "application/x-gzip"}}, {"content-encoding": "binary"}],
)
def test_encoded_messages_are_refused(change: dict[str, object]) -> None:
    payload = {**message_of(Push(1, envelope("a"))), "body": ""}
    assert OfferMessage(payload).delivery_tag == "1"
    with pytest.raises(ContentDisallowed):
        OfferMessage({**payload, **change})


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (EXPIRED, "has expired"),
        (NOT_YET_VALID, "set the clock"),
        (WRONG_HOST, "is for another name"),
        (20, "EDGEWISE_CA_FILE"),
    ],
)
def test_certificates_have_four_messages(code: int, words: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "because"
    wrapped = OSError("wrapped")
    wrapped.__cause__ = error
    assert words in certificate_problem(error)
    assert certificate_problem(wrapped) == certificate_problem(error)
    assert certificate_problem(OSError("another")) == ""


def test_credential_of_an_earlier_version_is_read(server: StandIn, tmp_path: Path) -> None:
    credential = credentials.from_enrolment(server.url, server.admission(), "2026-01-01")
    earlier = {"queue": "work", "key_prefix": "dev.7.", "broker_url": "redis://a:b@c:6379/0"}
    path = tmp_path / credentials.FILE
    path.write_text(json.dumps({**asdict(credential), **earlier}))
    assert credentials.load(tmp_path) == credential


def test_worker_reads_the_settings_of_its_agent(tmp_path: Path) -> None:
    environ = {"EDGEWISE_THREADS": "3", "EDGEWISE_LINK": "dsl"}
    settings = read_settings(str(tmp_path), environ=environ)
    assert read_settings(environ=settings.environment()) == settings


class Local:
    """A main process's line and socket, and a client in a thread as the training process has."""

    def __init__(self, server: StandIn, folder: Path) -> None:
        self.path = folder / "line.sock"
        self.offers = Offers()
        site = line_site(server.url, API_TOKEN)
        self.line = Line(site, body_of(Hello("boot-1")), Recorder())
        self.client = LineClient(self.path)
        self._start = StartAnswer("boot-1", {"kind": "stand-in"})

    async def open(self) -> None:
        self.socket = LocalServer(self.line, self.offers, self._start)
        await self.socket.open(self.path)
        self.running = asyncio.create_task(self.line.run())

    async def close(self) -> None:
        self.running.cancel()
        await self.socket.close()

    async def call(self, check: Callable[[], None] = lambda: None) -> float:
        """Send measurements; returns the seconds that it took."""
        began = time.monotonic()
        await asyncio.to_thread(self.client.call, UpKind.MEASUREMENTS, measured(1), check)
        return time.monotonic() - began


async def test_local_calls_reach_the_site(server: StandIn, tmp_path: Path) -> None:
    local = Local(server, tmp_path)
    with pytest.raises(ServerUnavailable, match="main process does not answer"):
        await local.call()
    await local.open()
    assert (await asyncio.to_thread(local.client.start)).profile == {"kind": "stand-in"}
    assert await local.call() < 1 * slack()
    unknown = {"assignment": "00000000-0000-0000-0000-000000000000", "reason": "no"}
    with pytest.raises(ServerRefused, match="no such assignment") as refused:
        await asyncio.to_thread(local.client.call, UpKind.REFUSE, unknown)
    assert refused.value.status == 404
    with pytest.raises(ServerRefused, match="the limit is") as refused:
        await asyncio.to_thread(local.client.call, UpKind.REFUSE, {"reason": "x" * 70_000})
    assert refused.value.status == 413
    await local.close()
    with pytest.raises(ServerUnavailable, match="main process does not answer"):
        await local.call()
    await local.open()
    await local.call()
    await local.close()


async def test_local_call_fails_soon_without_a_line(server: StandIn, tmp_path: Path) -> None:
    local = Local(server, tmp_path)
    await local.open()
    await local.call()
    server.stop()
    began = time.monotonic()
    with pytest.raises(ServerUnavailable, match="no line to the site"):
        await local.call()
    assert 0.5 < time.monotonic() - began < 2.5 * slack()
    server.come_back()
    await until(lambda: local.line.is_connected)
    assert await local.call() < 1 * slack()
    await local.close()


async def test_local_call_is_given_up_by_its_check(server: StandIn, tmp_path: Path) -> None:
    local = Local(server, tmp_path)
    await local.open()
    await local.call()
    server.line.is_deaf = True
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() - began > 0.3:
            raise Stopped("cancelled")

    with pytest.raises(Stopped):
        await local.call(check)
    server.line.cut()
    await until(lambda: local.line.is_connected)
    await local.call()  # its reply is not that of the call before
    await local.close()
