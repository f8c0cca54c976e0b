"""Opening and closing of lines in the database: the newest line counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from tests.conftest import Enrolled
from tests.line.lines import hello, on_line, opened_by
from webapp.devices.models import Device
from webapp.jobs.lifecycle import enrolment
from webapp.line.opening import OpenedLine, TooManyLines, close_line, open_line

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]


@pytest.fixture
def pi(enrolled_device: Callable[..., Enrolled]) -> Enrolled:
    return enrolled_device()


def presence() -> str:
    return Device.objects.get().presence


def test_each_line_has_a_higher_epoch(pi: Enrolled) -> None:
    assert [opened_by(pi) for _ in range(2)] == [
        OpenedLine(pi.device.pk, 1),
        OpenedLine(pi.device.pk, 2),
    ]


def test_refused_opening_leaves_the_older_line(pi: Enrolled) -> None:
    line, asked = opened_by(pi), list[int]()
    with pytest.raises(TooManyLines):
        open_line(pi.api_token, lambda device_id: bool(asked.append(device_id)))
    assert asked == [pi.device.pk]
    assert on_line(line, hello())[1] == 0


@pytest.mark.parametrize("token", ["", "nonsense", "\xff" * 40])
def test_unknown_token_opens_nothing(pi: Enrolled, token: str) -> None:
    assert open_line(token) is None
    assert Device.objects.get().line_epoch == 0


def test_revoked_device_opens_nothing(pi: Enrolled) -> None:
    enrolment.revoke(pi.device, None)
    assert open_line(pi.api_token) is None


def test_concurrent_lines_share_no_epoch(pi: Enrolled) -> None:
    ready = threading.Barrier(4)

    def attempt(_: int) -> list[int]:
        ready.wait(30)
        try:
            return [opened_by(pi).epoch for _ in range(10)]
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        epochs = [epoch for part in pool.map(attempt, range(4)) for epoch in part]
    assert sorted(epochs) == list(range(1, 41))


def test_end_of_the_line_is_the_end_of_presence(pi: Enrolled) -> None:
    line = opened_by(pi)
    on_line(line, hello())
    assert presence() == "online"
    close_line(line.device_id, line.epoch)
    assert presence() == "offline"


def test_end_of_an_older_line_changes_nothing(pi: Enrolled) -> None:
    older, newer = opened_by(pi), opened_by(pi)
    on_line(newer, hello())
    close_line(older.device_id, older.epoch)
    assert presence() == "online"


def test_hello_revives_a_disconnected_device(pi: Enrolled) -> None:
    line = opened_by(pi)
    close_line(line.device_id, line.epoch)
    first = Device.objects.get().disconnected_at
    close_line(line.device_id, line.epoch)
    assert Device.objects.get().disconnected_at == first is not None
    on_line(opened_by(pi), hello())
    assert Device.objects.get().disconnected_at is None
    assert presence() == "online"
