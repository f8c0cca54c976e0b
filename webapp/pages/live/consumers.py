"""WebSocket consumers of the live pages.

A channel-layer message only wakes a consumer. What it sends is read from the database behind the
reader's own cursors, at most four times a second. Without a wake-up it reads every two seconds, so
that presence stays current and a lost wake-up costs little.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.generic.websocket import (  # type: ignore[import-untyped]
    AsyncWebsocketConsumer,
)

from webapp.accounts.models import User
from webapp.common.wake import FLEET_GROUP, device_group, job_group
from webapp.pages.live.readers import (
    Cursors,
    DeviceReader,
    FleetReader,
    JobReader,
    SubjectDeleted,
)
from webapp.telemetry.report_interval import WATCH_TTL_S, watch

log = logging.getLogger(__name__)

SEND_INTERVAL_S = 0.25
POLL_INTERVAL_S = 2.0
# A browser that receives nothing for three heartbeats treats the connection as dead.
HEARTBEAT_S = 10.0
CHECK_ACCESS_S = 30.0
MAX_MESSAGE_BYTES = 256 * 1024
MAX_SEQ = 2**62
MAX_BAD_MESSAGES = 5
# Close codes from 4000 to 4999 are for private use.
CLOSE_BAD_MESSAGES, CLOSE_SIGNED_OUT, CLOSE_DELETED, CLOSE_TOO_BIG = 4400, 4401, 4404, 1009


class BadMessage(Exception):
    """A malformed message from the browser; the text says what is expected."""


class LiveReader(Protocol):
    def start_at(self, cursors: Cursors) -> None: ...

    def read(self) -> Mapping[str, object] | None: ...


def cursors_of(text: str) -> Cursors:
    """``{"cursors": {"events": 12, "samples": {"7": 1041}}}`` with integers only."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage("send JSON") from None
    cursors = message.get("cursors") if isinstance(message, dict) else None
    if not isinstance(cursors, dict):
        raise BadMessage('send {"cursors": {"events": 0, "samples": {}}}')
    samples = cursors.get("samples", {})
    if not isinstance(samples, dict):
        raise BadMessage("samples must be an object of device ids and sequence numbers")
    pairs = {_integer(key, "a device id"): _integer(seq, "a seq") for key, seq in samples.items()}
    events = cursors.get("events")
    return {
        "events": None if events is None else _integer(events, "events"),
        "samples": pairs,
    }


def _integer(value: object, name: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQ:
        raise BadMessage(f"{name} must be an integer of 0 or more, not {value!r:.40}")
    return value


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One browser that follows one subject; subclasses name its group and its reader."""

    groups: list[str] = []
    reader: LiveReader
    task: asyncio.Task[None] | None = None
    bad_messages = 0
    sent_at = 0.0

    def group(self) -> str:
        raise NotImplementedError

    def make_reader(self) -> LiveReader:
        raise NotImplementedError

    def watched(self) -> UUID | int | None:
        """The job or device that reports samples every second while this page is open."""
        return None

    async def connect(self) -> None:
        user = self.scope.get("user")
        if not isinstance(user, User) or not user.is_active:
            await self.close(CLOSE_SIGNED_OUT)
            return
        self.user = user
        self.woken = asyncio.Event()
        self.reader = self.make_reader()
        await self.channel_layer.group_add(self.group(), self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        if self.task is not None:
            self.task.cancel()
        if hasattr(self, "woken"):
            await self.channel_layer.group_discard(self.group(), self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        size = len(text_data or "") + len(bytes_data or b"")
        if size > MAX_MESSAGE_BYTES:
            await self.close(CLOSE_TOO_BIG)
            return
        try:
            if text_data is None:
                raise BadMessage("send text, not bytes")
            cursors = cursors_of(text_data)
            if self.task is not None:
                raise BadMessage("cursors are sent once; connect again to change them")
        except BadMessage as error:
            self.bad_messages += 1
            await self._send({"type": "error", "message": str(error)})
            if self.bad_messages >= MAX_BAD_MESSAGES:
                await self.close(CLOSE_BAD_MESSAGES)
            return
        self.reader.start_at(cursors)
        self.task = asyncio.create_task(self._follow())

    async def wake(self, event: dict[str, Any]) -> None:
        """Handler of the channel-layer message "wake": something has changed."""
        self.woken.set()

    async def _follow(self) -> None:
        checked, noted = time.monotonic(), -math.inf
        while True:
            started = time.monotonic()
            if started - noted > WATCH_TTL_S / 3:
                noted = started
                subject = self.watched()
                if subject is not None:
                    await database_sync_to_async(watch)(subject)
            if started - checked > CHECK_ACCESS_S:
                checked = started
                if not await database_sync_to_async(self._has_access)():
                    await self.close(CLOSE_SIGNED_OUT)
                    return
            self.woken.clear()
            if not await self._send_news():
                return
            await asyncio.sleep(max(0.0, SEND_INTERVAL_S - (time.monotonic() - started)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.woken.wait(), POLL_INTERVAL_S)

    async def _send_news(self) -> bool:
        """Read and send what is new; False if the subject has been deleted."""
        try:
            message = await database_sync_to_async(self.reader.read)()
        except SubjectDeleted as error:
            await self._send({"type": "error", "message": str(error)})
            await self.close(CLOSE_DELETED)
            return False
        except Exception:
            log.exception("reading for a live page failed")
            text = "the server could not read this data and will retry"
            await self._send({"type": "error", "message": text})
            return True
        if message is not None:
            await self._send(message)
        elif time.monotonic() - self.sent_at > HEARTBEAT_S:
            await self._send({"type": "beat"})
        return True

    async def _send(self, message: Mapping[str, object]) -> None:
        self.sent_at = time.monotonic()
        await self.send(json.dumps(message, separators=(",", ":"), allow_nan=False))

    def _has_access(self) -> bool:
        session = self.scope.get("session")
        key = getattr(session, "session_key", None)
        if session is not None and key and not session.exists(key):
            return False
        return User.objects.filter(pk=self.user.pk, is_active=True).exists()


class JobConsumer(LiveConsumer):
    @property
    def job_id(self) -> UUID:
        job_id: UUID = self.scope["url_route"]["kwargs"]["job_id"]
        return job_id

    def group(self) -> str:
        return job_group(self.job_id)

    def make_reader(self) -> LiveReader:
        return JobReader(self.job_id)

    def watched(self) -> UUID:
        return self.job_id


class DeviceConsumer(LiveConsumer):
    @property
    def device_id(self) -> int:
        device_id: int = self.scope["url_route"]["kwargs"]["device_id"]
        return device_id

    def group(self) -> str:
        return device_group(self.device_id)

    def make_reader(self) -> LiveReader:
        return DeviceReader(self.device_id)

    def watched(self) -> int:
        return self.device_id


class FleetConsumer(LiveConsumer):
    def group(self) -> str:
        return FLEET_GROUP

    def make_reader(self) -> LiveReader:
        return FleetReader()
