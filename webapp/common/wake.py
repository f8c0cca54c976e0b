"""Wake-ups for live pages. They carry nothing: a page reads the rows behind its own cursors.

They are sent by a thread of their own, so that no request and no decision waits for them, and what
comes in a burst is said once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from webapp.common.task_queue import BROKER_ERRORS

log = logging.getLogger(__name__)

FLEET_GROUP = "fleet"
GATHER_S = 0.05  # pages are sent four messages a second at most


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
    transaction.on_commit(partial(_send, groups))


def _send(groups: tuple[str, ...]) -> None:
    sender(groups)


class Waker:
    """Sends from a thread that starts with the first wake-up of its process."""

    def __init__(self) -> None:
        self._pid = 0
        self._lock = threading.Lock()
        self._due: set[str] = set()
        self._something = threading.Event()

    def __call__(self, groups: Iterable[str]) -> None:
        if self._pid != os.getpid():  # threads do not survive a fork
            self._begin()
        with self._lock:
            self._due.update(groups)
        self._something.set()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock, self._due, self._something = threading.Lock(), set(), threading.Event()
        threading.Thread(target=self._run, name="wake", daemon=True).start()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()  # one for good: the layer keeps its connection with it
        while True:
            self._something.wait()
            self._something.clear()
            with self._lock:
                groups, self._due = self._due, set()
            loop.run_until_complete(publish(groups))
            time.sleep(GATHER_S)


async def publish(groups: Iterable[str]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        for group in groups:
            await layer.group_send(group, {"type": "wake"})
    except BROKER_ERRORS as error:
        # A page also looks by itself every few seconds, so it is late by that much and no more.
        log.warning("live pages were not woken, the broker is down: %s", error)


# Replaced in tests, whose layer lives in the memory of one event loop, by ``at_once``.
sender: Callable[[Iterable[str]], None] = Waker()


def at_once(groups: Iterable[str]) -> None:
    async_to_sync(publish)(tuple(groups))
