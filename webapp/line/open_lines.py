"""The lines that are open in this process, and what is written about them in bulk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta, timezone
from functools import partial
from uuid import UUID

from django.db import DatabaseError

from fedcore.formats.line_bodies import DownBody
from fedcore.formats.line_messages import REPLACED
from fedcore.rounds.types import LEASED
from webapp.devices.models import Device
from webapp.jobs.models import Assignment
from webapp.line.batches import Batches
from webapp.line.line import DeviceLine

log = logging.getLogger(__name__)

HEARTBEAT_S = 20.0
CHUNK = 5_000  # device ids in one statement


class OpenLines:
    """One line per device: the newest."""

    def __init__(self, batches: Batches) -> None:
        self._lines: dict[int, DeviceLine] = {}
        self._batches = batches
        self._pushes: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: DeviceLine) -> None:
        """Add a line, and end the one that it replaces."""
        older = self._lines.get(line.device_id)
        self._lines[line.device_id] = line
        if older is not None:
            older.end(REPLACED)

    def remove(self, line: DeviceLine) -> None:
        if self._lines.get(line.device_id) is line:
            del self._lines[line.device_id]

    def device_ids(self) -> list[int]:
        """Devices that have said hello."""
        return [line.device_id for line in self._lines.values() if line.said_hello]

    def get(self, device_id: int) -> DeviceLine | None:
        return self._lines.get(device_id)

    def push(self, frames: Iterable[tuple[int, str, DownBody]]) -> None:
        """Send (device, kind, body) frames to those devices whose line is open here."""
        for device_id, kind, body in frames:
            line = self._lines.get(device_id)
            if line is not None and line.said_hello:
                task = asyncio.create_task(line.push(kind, body))
                self._pushes.add(task)
                task.add_done_callback(self._pushes.discard)

    async def keep_heartbeat(self) -> None:
        """Write for as long as this process runs that its lines are open."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            device_ids = self.device_ids()
            try:
                for start in range(0, len(device_ids), CHUNK):
                    chunk = device_ids[start : start + CHUNK]
                    await self._batches.run(partial(write_heartbeat, chunk))
            except DatabaseError as error:  # the next one is due soon
                log.warning("the heartbeat of %d devices waits: %s", len(device_ids), error)
            except Exception:  # a fault must not take every device offline
                log.exception("the heartbeat of %d devices failed", len(device_ids))


def write_heartbeat(device_ids: Collection[int]) -> None:
    """These devices are connected: they were seen now, and their leases go on."""
    now = datetime.now(timezone.utc)
    Device.objects.filter(pk__in=device_ids, disconnected_at=None).update(last_seen_at=now)
    leased = Assignment.objects.filter(
        device__in=device_ids,
        device__disconnected_at=None,
        phase__in=[phase.value for phase in LEASED],
    )
    pks: dict[float, list[UUID]] = {}
    for pk, policy in leased.values_list("pk", "round__policy"):
        pks.setdefault(float(policy.get("lease_s", 60.0)), []).append(pk)
    for lease_s, keys in pks.items():
        until = now + timedelta(seconds=lease_s)
        Assignment.objects.filter(
            pk__in=keys, phase__in=[phase.value for phase in LEASED], lease_until__lt=until
        ).update(lease_until=until)
