"""What a device says of itself to the site: free space, its store, its clock.

Only numbers and flags leave the device. Without space or a store it takes no work: offers wait
in its queue until it is mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from fedcore.formats.line_bodies import HealthBody, UpKind
from workers.agent.http.server_clock import TOLERATED_S, Clock
from workers.agent.line.device_line import Line
from workers.agent.state.shared_state import SharedState

CHECK_S = 30.0
MENDED = 1.1  # a disk that was full needs this much more than the bound, or it would alternate
# Smaller changes of the free space are not worth a message.
NEWS_SHARE, NEWS_BYTES = 0.1, 1_000_000
HEALTH_NOTE = "health"
TRY_LATER = 503

log = logging.getLogger(__name__)


class DeviceHealth:
    """Looks at this device. ``is_disk_full`` and ``store_failed`` are as of the last look."""

    def __init__(
        self, folder: Path, min_free_bytes: int, shared_state: SharedState, clock: Clock
    ) -> None:
        self._folder, self.min_free_bytes = folder, min_free_bytes
        self._shared_state, self._clock = shared_state, clock
        self.is_disk_full = False
        self.store_failed = not shared_state.is_wiped

    def can_work(self) -> bool:
        """Whether a run may begin now. Cheap: the store is not tried."""
        self._free_bytes()
        return not (self.is_disk_full or self.store_failed)

    def check(self) -> HealthBody:
        """All of it. Writes to the store."""
        free = self._free_bytes()
        try:
            if not self._shared_state.is_wiped:  # the start could not
                self._shared_state.wipe()
            self._shared_state.write_note(HEALTH_NOTE, repr(time.monotonic()))
            self.store_failed = False
        except (sqlite3.Error, OSError) as error:
            if not self.store_failed:
                log.error("cannot write the state folder: %s", error)
            self.store_failed = True
        ahead_s = time.time() - self._clock.now()
        return HealthBody(
            free,
            self.is_disk_full,
            self.store_failed,
            round(ahead_s, 1) if abs(ahead_s) > TOLERATED_S else 0.0,
        )

    def problem(self) -> str:
        """Words for this device's log and its status; '' where it takes work."""
        free = self._free_bytes()
        if self.is_disk_full:
            return full_disk_text(self._folder, free, self.min_free_bytes)
        return f"{self._folder} cannot be written; see its disk" if self.store_failed else ""

    def _free_bytes(self) -> int:
        free = shutil.disk_usage(self._folder).free
        bound = self.min_free_bytes * (MENDED if self.is_disk_full else 1.0)
        self.is_disk_full = free < bound
        return free


def full_disk_text(folder: Path, free: int, bound: int) -> str:
    return (
        f"the disk of {folder} is full ({free / 1e6:.1f} MB free, {bound / 1e6:.1f} MB needed); "
        "free some space"
    )


def is_news(health: HealthBody, sent: HealthBody) -> bool:
    """Whether the site should learn of the difference."""
    flags = (health.disk_full, health.store_failed) != (sent.disk_full, sent.store_failed)
    drift_s = abs(health.clock_ahead_s - sent.clock_ahead_s)
    change = abs(health.disk_free_bytes - sent.disk_free_bytes)
    return (
        flags
        or drift_s > TOLERATED_S
        or change > max(NEWS_BYTES, NEWS_SHARE * sent.disk_free_bytes)
    )


class HealthWatch:
    """Looks every CHECK_S, tells the site what is new, and lets work go on once mended.

    ``mended`` is called before that.
    """

    def __init__(
        self,
        health: DeviceHealth,
        line: Line,
        look_at_offers: Callable[[], None],
        mended: Callable[[], None],
    ) -> None:
        self._health, self._line = health, line
        self._look_at_offers, self._mended = look_at_offers, mended
        self._look_now = asyncio.Event()
        self._sent: HealthBody | None = None
        self._sending: asyncio.Task[None] | None = None
        self._problem = ""

    def greeted(self) -> None:
        """A line has begun: the site learns of the device's health at once."""
        self._sent = None
        self._look_now.set()

    async def run(self) -> None:
        while True:
            health = await asyncio.to_thread(self._health.check)
            before, self._problem = self._problem, self._health.problem()
            if self._problem and not before:
                log.warning("this device takes no work: %s", self._problem)
            elif before and not self._problem:
                log.info("this device takes work again")
                self._mended()
            self._look_at_offers()
            idle = self._sending is None or self._sending.done()
            news = self._sent is None or is_news(health, self._sent)
            if idle and news and self._line.is_connected:
                self._sending = asyncio.create_task(self._send(health))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), CHECK_S)
            self._look_now.clear()

    async def _send(self, health: HealthBody) -> None:
        self._sent = health
        message = await self._line.call(UpKind.HEALTH, health)
        if message.status == TRY_LATER and self._sent is health:
            self._sent = None
