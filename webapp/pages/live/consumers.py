"""The sockets of the live pages.

The channel layer only says "look": what is sent is read from the database behind the reader's own
cursors, at most four times a second, and every two seconds without being told, so that presence
ages and a lost wake-up costs little.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from typing import Any, Protocol
from uuid import UUID

from channels.db import database_sync_to_async  # type: ignore[import-untyped]
from channels.generic.websocket import (  # type: ignore[import-untyped]
    AsyncWebsocketConsumer,
)

from webapp.accounts.models import User
from webapp.common.wake import FLEET_GROUP, device_group, job_group
from webapp.pages.live.readers import DeviceReader, FleetReader, JobReader, SubjectDeleted
from webapp.telemetry.report_interval import WATCH_TTL_S, watch

log = logging.getLogger(__name__)

SEND_INTERVAL_S = 0.25
LOOK_ANYWAY_S = 2.0
# A browser that hears nothing for three beats knows that the connection is dead.
BEAT_S = 10.0
CHECK_ACCESS_S = 30.0
MAX_MESSAGE_BYTES = 256 * 1024
MAX_SEQ = 2**62
MAX_NONSENSE = 5
# Close codes: 4000 to 4999 are ours to give a meaning.
CLOSE_NONSENSE, CLOSE_SIGNED_OUT, CLOSE_DELETED, CLOSE_TOO_BIG = 4400, 4401, 4404, 1009


class BadMessage(Exception):
    """What the browser sent makes no sense; the text says what is expected."""


class LiveReader(Protocol):
    def start_at(self, cursors: dict[str, Any]) -> None: ...

    def read(self) -> dict[str, Any] | None: ...


def cursors_of(text: str) -> dict[str, Any]:
    """``{"cursors": {"events": 12, "samples": {"7": 1041}}}`` with whole numbers only."""
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
    pairs = {_whole(key, "a device id"): _whole(seq, "a seq") for key, seq in samples.items()}
    events = cursors.get("events")
    return {
        "events": None if events is None else _whole(events, "events"),
        "samples": pairs,
    }


def _whole(value: object, what: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQ:
        raise BadMessage(f"{what} must be a whole number from 0, not {value!r:.40}")
    return value


class Follow(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One browser that follows one thing. Subclasses say which group and which reader."""

    groups: list[str] = []
    reader: LiveReader
    task: asyncio.Task[None] | None = None
    nonsense = 0
    told_at = 0.0

    def group(self) -> str:
        raise NotImplementedError

    def make_reader(self) -> LiveReader:
        raise NotImplementedError

    def watched(self) -> UUID | int | None:
        """The job or device whose samples are wanted each second while this page is open."""
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
            await self._complain(str(error))
            return
        self.reader.start_at(cursors)
        self.task = asyncio.create_task(self._follow())

    async def wake(self, event: dict[str, Any]) -> None:
        """The channel layer's message: something changed."""
        self.woken.set()

    async def _complain(self, message: str) -> None:
        self.nonsense += 1
        await self._tell({"type": "error", "message": message})
        if self.nonsense >= MAX_NONSENSE:
            await self.close(CLOSE_NONSENSE)

    async def _follow(self) -> None:
        checked, noted = time.monotonic(), -math.inf
        while True:
            started = time.monotonic()
            if started - noted > WATCH_TTL_S / 3:
                noted = started
                await self._note_watched()
            if started - checked > CHECK_ACCESS_S:
                checked = started
                if not await database_sync_to_async(self._still_allowed)():
                    await self.close(CLOSE_SIGNED_OUT)
                    return
            self.woken.clear()
            if not await self._look():
                return
            await asyncio.sleep(max(0.0, SEND_INTERVAL_S - (time.monotonic() - started)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.woken.wait(), LOOK_ANYWAY_S)

    async def _note_watched(self) -> None:
        subject = self.watched()
        if subject is not None:
            await database_sync_to_async(watch)(subject)

    async def _look(self) -> bool:
        """Read and send what is new; False where there is nothing left to follow."""
        try:
            message = await database_sync_to_async(self.reader.read)()
        except SubjectDeleted as error:
            await self._tell({"type": "error", "message": str(error)})
            await self.close(CLOSE_DELETED)
            return False
        except Exception:
            log.exception("a live page could not be read")
            text = "the server could not read this; it tries again by itself"
            await self._tell({"type": "error", "message": text})
            return True
        if message is not None:
            await self._tell(message)
        elif time.monotonic() - self.told_at > BEAT_S:
            await self._tell({"type": "beat"})
        return True

    async def _tell(self, message: dict[str, Any]) -> None:
        self.told_at = time.monotonic()
        await self.send(json.dumps(message, separators=(",", ":"), allow_nan=False))

    def _still_allowed(self) -> bool:
        session = self.scope.get("session")
        key = getattr(session, "session_key", None)
        if session is not None and key and not session.exists(key):
            return False
        return User.objects.filter(pk=self.user.pk, is_active=True).exists()


class FollowJob(Follow):
    @property
    def job_id(self) -> UUID:
        found: UUID = self.scope["url_route"]["kwargs"]["job_id"]
        return found

    def group(self) -> str:
        return job_group(self.job_id)

    def make_reader(self) -> LiveReader:
        return JobReader(self.job_id)

    def watched(self) -> UUID:
        return self.job_id


class FollowDevice(Follow):
    @property
    def device_id(self) -> int:
        found: int = self.scope["url_route"]["kwargs"]["device_id"]
        return found

    def group(self) -> str:
        return device_group(self.device_id)

    def make_reader(self) -> LiveReader:
        return DeviceReader(self.device_id)

    def watched(self) -> int:
        return self.device_id


class FollowFleet(Follow):
    def group(self) -> str:
        return FLEET_GROUP

    def make_reader(self) -> LiveReader:
        return FleetReader()
