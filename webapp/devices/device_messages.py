"""Messages to devices over their broker: offers of work, and cancels.

kombu opens one connection per key prefix, so a round of a hundred devices would open a hundred.
``task_message`` writes Celery's format itself, and all offers of a round leave in one round trip.
``tests/stack/test_broker_messages.py`` has a real Celery worker receive them.
"""

from __future__ import annotations

import base64
import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import redis
from celery import Celery
from django.conf import settings
from kombu.connection import Connection
from kombu.pidbox import Mailbox
from redis.backoff import NoBackoff
from redis.retry import Retry

from webapp.common.task_queue import BROKER_ERRORS
from webapp.devices.broker_users import key_prefix
from webapp.devices.signing import sign

log = logging.getLogger(__name__)

WORK_TASK = "edgewise.work"
CANCEL_COMMAND = "edgewise_cancel"
WORK_QUEUE = "work"

_app = Celery("edgewise-devices", set_as_current=False)
_app.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)


@dataclass(frozen=True)
class DeviceMessage:
    """A signed message for one device; ``kind`` is work or cancel."""

    kind: str
    device_id: int
    envelope: dict[str, str]


class DevicePublisher(Protocol):
    """Sends messages to their devices; raises one of BROKER_ERRORS if it cannot."""

    def __call__(self, messages: Sequence[DeviceMessage]) -> None: ...


def publish(messages: Sequence[DeviceMessage]) -> None:
    """Push all offers in one round trip; broadcast each cancel to its device."""
    offers = [message for message in messages if message.kind == "work"]
    if offers:
        with _offer_client(settings.DEVICE_REDIS_URL).pipeline(transaction=False) as pipe:
            for message in offers:
                text = task_message(WORK_TASK, [message.envelope], WORK_QUEUE)
                pipe.lpush(f"{key_prefix(message.device_id)}{WORK_QUEUE}", text)
            pipe.execute()
    for message in messages:
        if message.kind != "work":
            # Celery's own broadcast would use its application's pool, without a key prefix.
            with device_connection(message.device_id) as connection:
                mailbox = Mailbox("celery", type="fanout", connection=connection, serializer="json")
                mailbox.abcast(CANCEL_COMMAND, {"envelope": message.envelope})


@lru_cache(maxsize=1)
def _offer_client(url: str) -> redis.Redis:
    """The connection used for offers, open for the life of the process."""
    once = Retry(NoBackoff(), 1)  # the connection may have died since the last offer
    return redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=3, retry=once)


@contextmanager
def device_connection(device_id: int) -> Iterator[Connection]:
    """A kombu connection with the key prefix of one device."""
    options: dict[str, Any] = {
        "global_keyprefix": key_prefix(device_id),
        "socket_connect_timeout": 3,
        "socket_timeout": 10,
        # One retry without a pause: the reconcile pass sends what is lost here.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
    }
    with Connection(settings.DEVICE_REDIS_URL, transport_options=options) as connection:
        yield connection


# Replaced by an outbox in tests.
publisher: DevicePublisher = publish


def offer(assignments: Sequence[tuple[int, str]]) -> bool:
    """Offer work to (device, assignment) pairs; False if the broker is down."""
    return _publish([_signed("work", device, assignment) for device, assignment in assignments])


def cancel(device_id: int, assignment: str, reason: str) -> bool:
    """Tell a device to stop; the response to its next telemetry says so too."""
    return _publish([_signed("cancel", device_id, assignment, reason=reason)])


def _signed(kind: str, device_id: int, assignment: str, **more: str) -> DeviceMessage:
    return DeviceMessage(kind, device_id, sign(kind, device_id, assignment, **more))


def _publish(messages: Sequence[DeviceMessage]) -> bool:
    try:
        publisher(messages)
    except BROKER_ERRORS as error:
        log.warning("the devices' broker is down, %d messages wait: %s", len(messages), error)
        return False
    return True


def task_message(task: str, args: list[Any], queue: str) -> str:
    """A message for LPUSH into ``queue``, as kombu's Redis transport writes it.

    Celery protocol 2, body as JSON in base64.
    """
    task_id = str(uuid.uuid4())
    message = _app.amqp.as_task_v2(task_id, task, args=args, kwargs={})
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(message.body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": message.headers,
            "properties": {
                "correlation_id": task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )
