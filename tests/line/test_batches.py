"""Database work of many lines in few threads: order, errors, callers that are gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial

import pytest
from django.db import DataError, OperationalError

from fedcore.formats.line_messages import Message
from webapp.line import batches
from webapp.line.batches import MAX_BATCH, THREADS, Batches
from webapp.line.calls import Origin
from webapp.line.frames import Received


class Gate:
    """A call that runs until it is opened."""

    def __init__(self) -> None:
        self.entered, self._opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self._opened.wait(30)

    def open(self) -> None:
        self._opened.set()


class Site:
    """Stands in for the database: notes the devices of each batch, the first of which waits."""

    def __init__(self) -> None:
        self.first, self.batches = Gate(), list[list[int]]()
        self.faults: list[Exception] = []

    def apply_frames(self, received: Sequence[Received]) -> list[Message]:
        self.batches.append([origin.device_id for origin, _ in received])
        if len(self.batches) == 1:
            self.first()
        if self.faults:
            raise self.faults.pop(0)
        return [Message(ack=message.n) for _, message in received]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site()
    monkeypatch.setattr(batches, "apply_frames", site.apply_frames)
    return site


def apply(lines: Batches, device_id: int) -> asyncio.Task[Message]:
    message = Message(n=1000 + device_id, kind="health")
    return asyncio.create_task(lines.apply(Origin(device_id, 1, "boot"), message))


async def behind_the_first(
    lines: Batches, site: Site, *device_ids: int
) -> list[asyncio.Task[Message]]:
    """Frames that gather while the frame of device 0, the first of the tasks, is applied."""
    first = apply(lines, 0)
    await asyncio.to_thread(site.first.entered.wait, 10)
    tasks = [first, *(apply(lines, device_id) for device_id in device_ids)]
    await asyncio.sleep(0)
    return tasks


def fail(error: Exception) -> None:
    raise error


async def test_result_comes_back() -> None:
    assert await Batches().run(lambda: 7) == 7


async def test_threads_share_the_work() -> None:
    lines, gate = Batches(), Gate()
    blocked = [asyncio.create_task(lines.run(gate)) for _ in range(THREADS - 1)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(lines.run(lambda: "other thread"), 10) == "other thread"
    gate.open()
    await asyncio.gather(*blocked)


async def test_lines_open_while_frames_are_applied(site: Site) -> None:
    lines = Batches()
    (first,) = await behind_the_first(lines, site)
    assert await asyncio.wait_for(lines.run(lambda: "opened"), 10) == "opened"
    site.first.open()
    assert (await first).ack == 1000


async def test_frames_gather_and_are_applied_in_order(site: Site) -> None:
    device_ids = range(1, MAX_BATCH + 51)
    tasks = await behind_the_first(Batches(), site, *device_ids)
    site.first.open()
    answers = await asyncio.gather(*tasks)
    assert [answer.ack for answer in answers] == [1000 + number for number in (0, *device_ids)]
    assert [len(batch) for batch in site.batches] == [1, MAX_BATCH, 50]
    assert [number for batch in site.batches for number in batch] == [0, *device_ids]


async def test_frames_after_a_pause_are_applied(site: Site) -> None:
    lines = Batches()
    site.first.open()
    for number in (1, 2, 3):
        assert (await asyncio.wait_for(apply(lines, number), 10)).ack == 1000 + number
    assert site.batches == [[1], [2], [3]]


async def test_error_of_a_call_reaches_its_caller_alone() -> None:
    lines = Batches()
    calls = (lambda: 1, partial(fail, DataError("too long")), lambda: 2)
    results = await asyncio.gather(*(lines.run(call) for call in calls), return_exceptions=True)
    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], DataError) and str(results[1]) == "too long"


async def test_fault_of_a_batch_reaches_its_frames_alone(site: Site) -> None:
    site.faults = [OperationalError("the server is away")]
    lines = Batches()
    first, *rest = await behind_the_first(lines, site, 1, 2)
    site.first.open()
    with pytest.raises(OperationalError, match="the server is away"):
        await first
    assert [answer.ack for answer in await asyncio.gather(*rest)] == [1001, 1002]
    assert site.batches == [[0], [1, 2]]


async def test_frame_of_an_ended_line_is_not_begun(site: Site) -> None:
    first, gone, there = await behind_the_first(Batches(), site, 1, 2)
    gone.cancel()
    await asyncio.sleep(0)
    site.first.open()
    await asyncio.gather(first, there)
    assert gone.cancelled()
    assert site.batches == [[0], [2]]


async def test_line_that_ends_while_its_frame_is_applied(site: Site) -> None:
    gone, there = await behind_the_first(Batches(), site, 1)
    gone.cancel()
    await asyncio.sleep(0)
    site.first.open()
    assert (await asyncio.wait_for(there, 10)).ack == 1001
    assert gone.cancelled()


async def test_caller_that_leaves_a_running_call() -> None:
    lines, gate = Batches(), Gate()
    gone = asyncio.create_task(lines.run(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    gone.cancel()
    await asyncio.sleep(0)
    gate.open()
    assert await lines.run(lambda: "goes on") == "goes on"


async def test_fault_of_a_thread_hangs_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Batches()
    site.first.open()
    with monkeypatch.context() as patch:
        patch.setattr(batches, "close_old_connections", partial(fail, OperationalError("broken")))
        for task in (asyncio.create_task(lines.run(lambda: 1)), apply(lines, 1)):
            with pytest.raises(OperationalError, match="broken"):
                await asyncio.wait_for(task, 10)
    assert await lines.run(lambda: 2) == 2
    assert (await apply(lines, 2)).ack == 1002
