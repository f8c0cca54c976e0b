"""Brings messages for devices from the site's broker to the lines of this process.

Every web process hears every message and passes on those for its own lines. A message that
nobody hears is sent again: at the next hello, or by the coordinator's reconcile pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio as redis
from django.conf import settings
from django.db import DatabaseError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fedcore.formats.line_bodies import DownBody, Interval
from fedcore.formats.line_messages import REPLACED, REVOKED
from fedcore.rounds.types import AssignmentPhase
from webapp.devices import device_messages
from webapp.devices.device_messages import DeviceMessage, signed_offer
from webapp.devices.models import Device
from webapp.jobs.models import Assignment
from webapp.line.batches import Batches
from webapp.line.open_lines import OpenLines

log = logging.getLogger(__name__)

Reader = Callable[[Sequence[int]], list[DeviceMessage]]

RETRY_S = 1.0
POLL_S = 20.0  # a connection that is silent for longer is checked by a ping
ANSWER_S = 10.0  # within which the ping is answered
CHUNK = 1_000  # devices in one call of the database


class Delivery:
    """Listens for as long as the process runs."""

    def __init__(self, lines: OpenLines, batches: Batches) -> None:
        self._lines = lines
        self._batches = batches

    async def listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except (RedisError, OSError) as error:
                log.warning("devices wait for the site's broker: %s", error)
            except Exception:  # a fault must not end the delivery to every device
                log.exception("the delivery to devices failed and begins again")
            await asyncio.sleep(RETRY_S)

    async def _listen_once(self) -> None:
        once = Retry(NoBackoff(), 0)  # ``listen`` tries again, and says so
        client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=5, retry=once)
        try:
            async with client.pubsub() as subscription:
                await asyncio.wait_for(subscription.subscribe(device_messages.CHANNEL), ANSWER_S)
                while True:
                    item = await subscription.get_message(timeout=POLL_S)
                    if item is None:
                        await subscription.ping()
                        item = await subscription.get_message(timeout=ANSWER_S)
                    if item is None:
                        raise redis.TimeoutError(f"no answer within {ANSWER_S:g} s")
                    await self._handle(item)
        finally:
            await client.aclose()

    async def _handle(self, item: Mapping[str, Any]) -> None:
        if item["type"] == "subscribe":  # also after the client connected again by itself
            await self.catch_up()
        elif item["type"] == "message":
            try:
                self.deliver(device_messages.read_messages(item["data"]))
            except msgspec.MsgspecError as error:
                log.warning("a message to devices cannot be read: %s", error)

    async def catch_up(self) -> None:
        """Deliver what was published while this process did not listen."""
        device_ids = self._lines.device_ids()
        for start in range(0, len(device_ids), CHUNK):
            await self._deliver_from_database(device_ids[start : start + CHUNK], missed_messages)

    async def send_open_offers(self, device_id: int, queued: Collection[UUID] = ()) -> None:
        """What the device has not accepted yet, without the assignments that it has queued."""
        await self._deliver_from_database([device_id], partial(open_offers, queued=queued))

    async def _deliver_from_database(self, device_ids: Sequence[int], read: Reader) -> None:
        try:
            self.deliver(await self._batches.run(partial(read, device_ids)))
        except DatabaseError as error:
            log.warning("offers wait for the coordinator's reconcile pass: %s", error)

    def deliver(self, messages: Sequence[DeviceMessage]) -> None:
        """Pass on the messages of lines in this process."""
        frames: list[tuple[int, str, DownBody]] = []
        for message in messages:
            line = self._lines.get(message.device_id)
            if line is None:
                continue
            if message.envelope is not None:
                frames.append((message.device_id, message.kind, message.envelope))
            elif message.interval_s:
                frames.append((message.device_id, message.kind, Interval(message.interval_s)))
            elif message.kind == device_messages.REVOKED:
                line.end(REVOKED)
            elif line.origin.epoch < message.epoch:
                line.end(REPLACED)
        self._lines.push(frames)


def open_offers(device_ids: Sequence[int], queued: Collection[UUID] = ()) -> list[DeviceMessage]:
    """The devices' offers, signed anew, without those of ``queued`` assignments."""
    offered = (
        Assignment.objects.filter(device__in=device_ids, phase=AssignmentPhase.OFFERED.value)
        .exclude(pk__in=queued)
        .order_by("offered_at")
    )
    return [signed_offer(device, str(pk)) for device, pk in offered.values_list("device", "pk")]


def missed_messages(device_ids: Sequence[int]) -> list[DeviceMessage]:
    """Revocations, newer lines and offers of these devices, whether published or not."""
    devices = Device.objects.filter(pk__in=device_ids)
    ends = [
        DeviceMessage(device_messages.REVOKED, pk)
        if revoked_at
        else DeviceMessage(device_messages.OPENED, pk, epoch=epoch)
        for pk, revoked_at, epoch in devices.values_list("pk", "revoked_at", "line_epoch")
    ]
    return [*ends, *open_offers(device_ids)]
