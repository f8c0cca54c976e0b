"""Wake-up messages for live pages. They carry no data: a page reads the rows after its cursors.

A thread of its own sends them, so that no request waits for the broker, and bursts are merged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from webapp.common.task_queue import BROKER_ERRORS

log = logging.getLogger(__name__)

FLEET_GROUP = "fleet"
MERGE_S = 0.05  # wake-ups within this time are merged


def job_group(job_id: UUID) -> str:
    return f"job.{job_id.hex}"


def device_group(device_id: int) -> str:
    return f"device.{device_id}"


def wake_job(job_id: UUID) -> None:
    _wake(job_group(job_id), FLEET_GROUP)


def wake_device(device_id: int) -> None:
    _wake(device_group(device_id), FLEET_GROUP)


def wake_fleet() -> None:
    _wake(FLEET_GROUP)


def _wake(*groups: str) -> None:
    transaction.on_commit(lambda: sender(groups))


class Waker:
    """Sends from a thread that starts with the first wake-up of the process."""

    def __init__(self) -> None:
        self._pid = 0
        self._lock = threading.Lock()
        self._due: set[str] = set()
        self._pending = threading.Event()

    def __call__(self, groups: Iterable[str]) -> None:
        if self._pid != os.getpid():  # threads do not survive a fork
            self._pid = os.getpid()
            self._lock, self._due, self._pending = threading.Lock(), set(), threading.Event()
            threading.Thread(target=self._run, name="wake", daemon=True).start()
        with self._lock:
            self._due.update(groups)
        self._pending.set()

    def _run(self) -> None:
        loop = (
            asyncio.new_event_loop()
        )  # one for all messages, as the layer keeps its connection in it
        while True:
            self._pending.wait()
            self._pending.clear()
            with self._lock:
                groups, self._due = self._due, set()
            loop.run_until_complete(publish(groups))
            time.sleep(MERGE_S)


async def publish(groups: Iterable[str]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        for group in groups:
            await layer.group_send(group, {"type": "wake"})
    except BROKER_ERRORS as error:
        # Pages also poll every few seconds, so they are late by no more than that.
        log.warning("live pages were not woken because the broker is down: %s", error)


# Tests replace it by ``at_once``: their in-memory layer belongs to one event loop.
sender: Callable[[Iterable[str]], None] = Waker()


def at_once(groups: Iterable[str]) -> None:
    async_to_sync(publish)(tuple(groups))
