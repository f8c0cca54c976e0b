"""The site's broker goes and comes back while lines are open."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from fedcore.formats.line_messages import REPLACED, REVOKED
from tests.conftest import Enrolled
from tests.federation import Federation
from tests.line.clients import LineClient, wait_until
from tests.line.site import BROKER, Site
from webapp.devices import device_messages
from webapp.devices.models import Device
from webapp.jobs.lifecycle import enrolment
from webapp.jobs.models import Assignment

pytestmark = pytest.mark.slow

OTHER = "other"
SILENT_S = 5.0  # the cache is waited for once, for a second


@pytest.fixture
def without_broker(site: Site) -> Iterator[Callable[[], None]]:
    """Kills the broker. It is there again, and listened to, for the next test."""
    yield lambda: site.processes.kill(BROKER)
    if not site.processes.is_alive(BROKER):
        site.start_broker()


def listens(pi: Enrolled, line: LineClient) -> None:
    """Wait until messages from the broker arrive at the line."""

    def arrived() -> bool:
        device_messages.set_interval(pi.device.pk, 3.0)
        line.call("measurements")
        return any(message.kind == "interval" for message in line.frames)

    wait_until(arrived)


def test_offers_arrive_after_the_brokers_return(
    site: Site, federation: Federation, without_broker: Callable[[], None]
) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    with (
        LineClient(site, kitchen.enrolled.api_token) as line,
        LineClient(site, porch.enrolled.api_token) as second,
    ):
        line.hello(kitchen.boot_id)
        second.hello(porch.boot_id)
        listens(kitchen.enrolled, line)
        without_broker()
        federation.launch()
        offered = {str(pk) for pk in Assignment.objects.values_list("pk", flat=True)}
        assert set(Assignment.objects.values_list("sent_at", flat=True)) == {None}
        site.start_broker()
        arrived = {each.frame("offer")["assignment"] for each in (line, second)}
        assert arrived == offered


def test_frames_are_taken_without_broker(
    site: Site, enrolled_device: Callable[..., Enrolled], without_broker: Callable[[], None]
) -> None:
    pi = enrolled_device()
    with LineClient(site, pi.api_token) as line:
        line.hello()
        without_broker()
        begin = time.monotonic()
        assert line.call("measurements").succeeded
        with LineClient(site, pi.api_token) as newer:
            newer.hello()
            assert newer.call("measurements").succeeded
        assert time.monotonic() - begin < 5


@pytest.fixture
def silent_broker(site: Site) -> Iterator[Callable[[int], None]]:
    """Sends SIGSTOP or SIGCONT: a stopped broker accepts connections and never answers."""
    yield site.processes.running[BROKER].send_signal
    site.processes.running[BROKER].send_signal(signal.SIGCONT)


def test_no_frame_waits_for_a_silent_broker(
    site: Site, federation: Federation, silent_broker: Callable[[int], None]
) -> None:
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    with (
        LineClient(site, kitchen.enrolled.api_token) as line,
        LineClient(site, porch.enrolled.api_token) as calm,
    ):
        line.hello(kitchen.boot_id)
        calm.hello(porch.boot_id)
        listens(kitchen.enrolled, line)
        federation.launch()
        assignment = line.frame("offer")["assignment"]
        assert line.call("accept", assignment=assignment).succeeded
        silent_broker(signal.SIGSTOP)
        begin = time.monotonic()
        report = line.send("report", assignment=assignment, update=None, examples=6)
        foreign = {"assignment": "3d307612-6f86-4f5a-b76f-2b517e81b1cd", "phase": "training"}
        cancelled = line.send("measurements", activity=foreign)
        assert line.answer(report).succeeded
        assert line.answer(cancelled).succeeded
        for _ in range(10):
            with LineClient(site, kitchen.enrolled.api_token) as newer:
                newer.hello(kitchen.boot_id)
                assert newer.call("measurements").succeeded
            assert calm.call("measurements").succeeded
        assert time.monotonic() - begin < SILENT_S


def test_messages_follow_the_brokers_silence(
    site: Site, enrolled_device: Callable[..., Enrolled], silent_broker: Callable[[int], None]
) -> None:
    pi = enrolled_device()
    foreign = {"assignment": "3d307612-6f86-4f5a-b76f-2b517e81b1cd", "phase": "training"}
    with LineClient(site, pi.api_token) as line:
        line.hello()
        listens(pi, line)
        silent_broker(signal.SIGSTOP)
        assert line.call("measurements", activity=foreign).succeeded
        silent_broker(signal.SIGCONT)
        assert line.frame("cancel")["assignment"] == foreign["assignment"]


@pytest.mark.parametrize("missed", ["revocation", "newer line"])
def test_missed_ends_follow_the_brokers_return(
    site: Site,
    enrolled_device: Callable[..., Enrolled],
    without_broker: Callable[[], None],
    missed: str,
) -> None:
    pi = enrolled_device()
    if missed == "newer line":
        site.start_web(OTHER)
    with LineClient(site, pi.api_token) as line:
        line.hello()
        listens(pi, line)
        without_broker()
        if missed == "revocation":
            enrolment.revoke(pi.device, None)
            site.start_broker()
            assert line.close_code() == REVOKED
            return
        with LineClient(site, pi.api_token, OTHER) as newer:
            newer.hello()
            site.start_broker()
            assert line.close_code() == REPLACED
            assert Device.objects.get().presence == "online"
    site.stop(OTHER)
