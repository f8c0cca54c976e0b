"""Ends of lines on a real site: broken connections, stopped processes, slow and greedy devices."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from fedcore.formats.line_messages import REPLACED, TOO_MUCH
from tests.conftest import Enrolled
from tests.line.clients import LineClient, wait_until
from tests.line.site import Site
from webapp.devices import device_messages
from webapp.devices.models import Device

pytestmark = pytest.mark.slow

OTHER = "other"


@pytest.fixture
def other(site: Site) -> Iterator[str]:
    """A second web process, with tight limits."""
    site.start_web(OTHER, EDGEWISE_LINE_MESSAGES_PER_S="20", EDGEWISE_LINE_PATIENCE_S="2")
    yield OTHER
    if site.processes.is_alive(OTHER):
        site.stop(OTHER)


def disconnected(pi: Enrolled) -> bool:
    return Device.objects.get(pk=pi.device.pk).disconnected_at is not None


def test_broken_connection_ends_presence(
    site: Site, enrolled_device: Callable[..., Enrolled]
) -> None:
    pi = enrolled_device()
    with LineClient(site, pi.api_token) as line:
        line.hello()
        assert not disconnected(pi)
        line.drop()
        wait_until(lambda: disconnected(pi), 5)
    assert Device.objects.get().presence == "offline"


def test_closed_connection_ends_presence(
    site: Site, enrolled_device: Callable[..., Enrolled]
) -> None:
    pi = enrolled_device()
    with LineClient(site, pi.api_token) as line:
        line.hello()
    wait_until(lambda: disconnected(pi), 5)


def test_device_that_leaves_in_midsentence(
    site: Site, enrolled_device: Callable[..., Enrolled]
) -> None:
    """The site answers into a connection that is already gone."""
    pi = enrolled_device()
    before = len(site.log())
    for _ in range(5):
        with LineClient(site, pi.api_token) as line:
            line.hello()
            for _ in range(20):
                line.send("measurements")
            line.socket.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
            )
            line.drop()
        wait_until(lambda: disconnected(pi), 5)
    assert "Traceback" not in site.log()[before:]


def test_newest_line_wins_across_processes(
    site: Site, other: str, enrolled_device: Callable[..., Enrolled]
) -> None:
    pi = enrolled_device()
    with LineClient(site, pi.api_token) as older:
        older.hello()
        with LineClient(site, pi.api_token, other) as newer:
            newer.hello()
            assert older.close_code() == REPLACED
            assert device_messages.offer([(pi.device.pk, "an-assignment")])
            assert newer.frame("offer")["assignment"] == "an-assignment"
            assert older.frames == []
            assert not disconnected(pi)


def test_stopped_process_disconnects_nobody(
    site: Site, other: str, enrolled_device: Callable[..., Enrolled]
) -> None:
    pi, revoked = enrolled_device("pi-kitchen"), enrolled_device("pi-porch")
    with LineClient(site, pi.api_token, other) as line, LineClient(site, revoked.api_token) as rest:
        line.hello()
        rest.hello()
        site.stop(other)
        assert line.close_code() == 1012
        assert not disconnected(pi)
        assert Device.objects.get(pk=pi.device.pk).presence == "online"
        with LineClient(site, pi.api_token) as again:
            assert again.hello()["name"] == "pi-kitchen"


def test_flood_is_slowed_then_cut(
    site: Site, other: str, enrolled_device: Callable[..., Enrolled]
) -> None:
    pi, calm = enrolled_device("pi-flood"), enrolled_device("pi-calm")
    with (
        LineClient(site, pi.api_token, other) as flood,
        LineClient(site, calm.api_token, other) as line,
    ):
        flood.hello()
        line.hello()
        begin = time.monotonic()
        for _ in range(160 + 19):  # the burst, and a second's worth
            flood.send("measurements")
        assert flood.answer(180).succeeded
        assert time.monotonic() - begin > 0.5, "slowed to 20 a second"
        for _ in range(300):
            flood.send("measurements")
        longest_s = 0.0
        for _ in range(10):
            asked_at = time.monotonic()
            line.call("measurements")
            longest_s = max(longest_s, time.monotonic() - asked_at)
        assert flood.close_code() == TOO_MUCH
        assert longest_s < 1.0
    wait_until(lambda: disconnected(pi), 5)


def small_window(site: Site) -> socket.socket:
    """A connection whose device can take in little unread."""
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    end.connect(("127.0.0.1", site.ports["web"]))
    return end


def test_device_that_never_reads_is_cut(
    site: Site, enrolled_device: Callable[..., Enrolled]
) -> None:
    deaf, other = enrolled_device("pi-deaf"), enrolled_device("pi-other")
    with LineClient(site, deaf.api_token, sock=small_window(site), max_queue=2) as line:
        line.hello()
        with LineClient(site, other.api_token) as reader:
            reader.hello()
            deadline, longest_s = time.monotonic() + 60, 0.0
            while not disconnected(deaf) and time.monotonic() < deadline:
                device_messages.offer([(deaf.device.pk, "x" * 2000)] * 500)
                asked_at = time.monotonic()
                device_messages.offer([(other.device.pk, "an-assignment")])
                assert reader.frame("offer")["assignment"] == "an-assignment"
                longest_s = max(longest_s, time.monotonic() - asked_at)
            assert disconnected(deaf)
            assert longest_s < 1.0
            assert not disconnected(other)
    assert Device.objects.get(pk=deaf.device.pk).last_seen_at > timezone.now() - timedelta(
        minutes=2
    )
