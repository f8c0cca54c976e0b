"""The heartbeat of open lines, and frames that are pushed to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.db import OperationalError
from django.utils import timezone

from fedcore.formats.line_bodies import Interval
from fedcore.formats.line_messages import REPLACED, TOO_MUCH
from tests.conftest import Enrolled
from tests.device import Pi
from tests.federation import LEASE_S, Federation
from tests.line.lines import Device, hello, opened_by, with_batches
from webapp.devices import models
from webapp.jobs.models import Assignment
from webapp.line import open_lines
from webapp.line.batches import Batches
from webapp.line.open_lines import OpenLines, write_heartbeat
from webapp.line.opening import OpenedLine, close_line

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

LONG_AGO = timezone.now() - timedelta(days=1)


def lease_of(work: dict[str, str]) -> datetime:
    until = Assignment.objects.get(pk=UUID(work["assignment"])).lease_until
    assert until is not None
    return until


@pytest.fixture
def working(federation: Federation) -> tuple[Pi, Pi]:
    """Two devices that have accepted their work, whose leases are about to end."""
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    federation.launch()
    models.Device.objects.update(last_seen_at=LONG_AGO)
    return kitchen, porch


def test_heartbeat_renews_presence_and_lease(
    federation: Federation, working: tuple[Pi, Pi]
) -> None:
    kitchen, porch = working
    mine, others = kitchen.take(), porch.take()
    federation.later(LEASE_S - 5)
    before = lease_of(others)
    write_heartbeat([kitchen.device.pk])
    assert kitchen.device.is_online
    assert lease_of(mine) > timezone.now() + timedelta(seconds=LEASE_S - 60)
    assert porch.device.last_seen_at == LONG_AGO
    assert lease_of(others) == before


def test_heartbeat_shortens_no_lease(working: tuple[Pi, Pi]) -> None:
    """After an outage leases are extended beyond their usual length."""
    kitchen, _ = working
    work = kitchen.take()
    later = timezone.now() + timedelta(days=1)
    Assignment.objects.filter(pk=work["assignment"]).update(lease_until=later)
    write_heartbeat([kitchen.device.pk])
    assert lease_of(work) == later


def test_heartbeat_revives_no_disconnected_device(
    federation: Federation, working: tuple[Pi, Pi]
) -> None:
    """Its newer line has ended elsewhere, and the older one is not yet closed here."""
    kitchen, _ = working
    work = kitchen.take()
    close_line(kitchen.device.pk, kitchen.device.line_epoch)
    models.Device.objects.update(last_seen_at=LONG_AGO)
    before = lease_of(work)
    write_heartbeat([kitchen.device.pk])
    assert kitchen.device.presence == "offline"
    assert kitchen.device.last_seen_at == LONG_AGO
    assert lease_of(work) == before


def test_heartbeat_renews_no_ended_work(working: tuple[Pi, Pi]) -> None:
    kitchen, _ = working
    work = kitchen.take()
    kitchen.act(work["assignment"], "fail", {"reason": "x"})
    before = lease_of(work)
    write_heartbeat([kitchen.device.pk])
    assert lease_of(work) == before


def test_heartbeat_queries_are_constant(
    enrolled_device: Callable[..., Enrolled], django_assert_max_num_queries: Callable[..., object]
) -> None:
    pks = [enrolled_device(f"pi-{number}").device.pk for number in range(20)]
    with django_assert_max_num_queries(2):  # type: ignore[attr-defined]
        write_heartbeat(pks)


def test_heartbeat_survives_a_fault(
    enrolled_device: Callable[..., Enrolled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of the database, and a fault of the code: the next beat is written."""
    pi = enrolled_device()
    faults: list[Exception] = [OperationalError("away"), RuntimeError("a fault")]
    beats = asyncio.Event()

    def flaky(pks: list[int]) -> None:
        if faults:
            raise faults.pop(0)
        write_heartbeat(pks)
        loop.call_soon_threadsafe(beats.set)

    monkeypatch.setattr(open_lines, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(open_lines, "write_heartbeat", flaky)
    opened = opened_by(pi)
    models.Device.objects.update(last_seen_at=LONG_AGO)

    async def run(batches: Batches) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        lines = OpenLines(batches)
        line = Device().line(opened, batches)
        lines.add(line)
        await line.receive(hello())
        task = asyncio.create_task(lines.keep_heartbeat())
        await asyncio.wait_for(beats.wait(), 20)
        task.cancel()

    loop: asyncio.AbstractEventLoop
    with_batches(run)
    assert models.Device.objects.get().is_online


def test_line_without_hello_gets_nothing(enrolled_device: Callable[..., Enrolled]) -> None:
    opened, device = opened_by(enrolled_device()), Device()

    async def run(batches: Batches) -> None:
        lines = OpenLines(batches)
        line = device.line(opened, batches)
        lines.add(line)
        lines.push([(opened.device_id, "interval", Interval(1.0))])
        await asyncio.sleep(0)
        assert (device.sent, lines.device_ids()) == ([], [])
        await line.receive(hello())
        lines.push([(opened.device_id, "interval", Interval(1.0)), (99, "interval", Interval(1.0))])
        await asyncio.sleep(0)
        assert lines.device_ids() == [opened.device_id]

    with_batches(run)
    assert device.frames == [("interval", 1)]


def test_slow_reader_delays_no_other(enrolled_device: Callable[..., Enrolled]) -> None:
    slow, quick = Device(), Device()

    async def run(batches: Batches) -> None:
        lines = OpenLines(batches)
        for device, opened in zip((slow, quick), both, strict=True):
            line = device.line(opened, batches)
            lines.add(line)
            await line.receive(hello())
        slow.reads = asyncio.Event()
        lines.push([(opened.device_id, "interval", Interval(1.0)) for opened in both] * 40)
        await asyncio.sleep(0.05)

    both = [opened_by(enrolled_device(name)) for name in ("pi-slow", "pi-quick")]
    with_batches(run)
    assert len(quick.frames) == 40
    assert slow.frames == []
    assert (slow.code, quick.code) == (TOO_MUCH, 0)


def test_newest_line_of_a_device_is_open() -> None:
    async def run(batches: Batches) -> None:
        lines = OpenLines(batches)
        first, second = (device.line(OpenedLine(7, epoch), batches) for epoch, device in both)
        lines.add(first)
        assert (older.code, len(lines)) == (0, 1)
        lines.add(second)
        assert (older.code, newer.code) == (REPLACED, 0)
        lines.remove(first)
        assert lines.get(7) is second
        lines.remove(second)
        assert (lines.get(7), len(lines)) == (None, 0)

    older, newer = Device(), Device()
    both = enumerate((older, newer), start=1)
    with_batches(run)
