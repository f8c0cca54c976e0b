"""Messages to devices, from any process of the site to the web process that has their line.

They travel over the site's broker, to which no device has access. One that nobody hears is lost:
the line's hello and the coordinator's reconcile pass send again what is still needed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Protocol

import msgspec
import redis
from django.conf import settings
from msgspec import Struct
from redis.backoff import NoBackoff
from redis.retry import Retry

from fedcore.formats.line_bodies import Envelope
from webapp.common.background import in_background
from webapp.common.task_queue import BROKER_ERRORS
from webapp.devices.signing import sign

log = logging.getLogger(__name__)

CHANNEL = "edgewise.devices"
CHUNK = 500  # messages in one publication

OFFER, CANCEL, INTERVAL = "offer", "cancel", "interval"  # frames for the device
OPENED, REVOKED = "opened", "revoked"  # for the processes that have the device's older line


class DeviceMessage(Struct, frozen=True, omit_defaults=True):
    """A message about one device. Which fields count depends on ``kind``."""

    kind: str
    device_id: int
    envelope: Envelope | None = None
    interval_s: float = 0.0
    epoch: int = 0


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(list[DeviceMessage])


class DevicePublisher(Protocol):
    """Sends messages to their devices; raises one of BROKER_ERRORS if it cannot."""

    def __call__(self, messages: Sequence[DeviceMessage]) -> None: ...


def publish(messages: Sequence[DeviceMessage]) -> None:
    """Publish all messages in one round trip."""
    with _client(settings.REDIS_URL).pipeline(transaction=False) as pipe:
        for start in range(0, len(messages), CHUNK):
            pipe.publish(CHANNEL, _ENCODER.encode(messages[start : start + CHUNK]))
        pipe.execute()


def read_messages(data: bytes) -> list[DeviceMessage]:
    return _DECODER.decode(data)


@lru_cache(maxsize=1)
def _client(url: str) -> redis.Redis:
    """The connection for publishing, open for the life of the process."""
    once = Retry(NoBackoff(), 1)  # the connection may have died since the last message
    return redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=3, retry=once)


# Replaced by an outbox in tests.
publisher: DevicePublisher = publish


def offer(assignments: Sequence[tuple[int, str]]) -> bool:
    """Offer work to (device, assignment) pairs; False if the broker is down."""
    return _publish([signed_offer(device, assignment) for device, assignment in assignments])


def signed_offer(device_id: int, assignment: str) -> DeviceMessage:
    return DeviceMessage(OFFER, device_id, Envelope(**sign("work", device_id, assignment)))


def cancel(device_id: int, assignment: str, reason: str) -> bool:
    """Tell a device to stop; after its next measurements it is told again."""
    return _publish([_cancellation(device_id, assignment, reason)])


def cancel_soon(device_id: int, assignment: str, reason: str) -> None:
    """The same without waiting for the broker."""
    in_background(partial(_publish, [_cancellation(device_id, assignment, reason)]))


def _cancellation(device_id: int, assignment: str, reason: str) -> DeviceMessage:
    envelope = Envelope(**sign("cancel", device_id, assignment, reason=reason[:1000]))
    return DeviceMessage(CANCEL, device_id, envelope)


def announce_line(device_id: int, epoch: int) -> None:
    """Have other web processes end the device's older lines, without waiting for the broker."""
    in_background(partial(_publish, [DeviceMessage(OPENED, device_id, epoch=epoch)]))


def announce_revocation(device_id: int) -> bool:
    """Have the device's line ended."""
    return _publish([DeviceMessage(REVOKED, device_id)])


def set_interval(device_id: int, interval_s: float) -> bool:
    """Tell a device how often to send measurements."""
    return _publish([DeviceMessage(INTERVAL, device_id, interval_s=interval_s)])


def _publish(messages: Sequence[DeviceMessage]) -> bool:
    try:
        publisher(messages)
    except BROKER_ERRORS as error:
        log.warning("the broker is down, %d messages to devices wait: %s", len(messages), error)
        return False
    return True
