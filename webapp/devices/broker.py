"""The devices' broker: one user per device that sees its own keys and channels only.

``tests/stack/test_broker_acl.py`` tries to break out, against a real server.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import redis
from django.conf import settings
from kombu.connection import Connection
from kombu.pidbox import Mailbox
from redis.backoff import NoBackoff
from redis.retry import Retry

from webapp.broker import BROKER_ERRORS
from webapp.devices.envelope import sign
from webapp.devices.messages import task_message
from webapp.devices.models import Credential, Device, hashed

log = logging.getLogger(__name__)

WORK_TASK = "edgewise.work"
CANCEL_COMMAND = "edgewise_cancel"
WORK_QUEUE = "work"

# fmt: off
COMMANDS = (
    "ping", "auth", "hello", "client|setname", "multi", "exec", "discard", "watch", "unwatch",
    "brpop", "lpush", "rpush", "rpop", "llen", "sadd", "srem", "smembers", "zadd", "zrem",
    "zrange", "zrangebyscore", "zrevrangebyscore", "hset", "hget", "hdel", "hlen", "set", "get",
    "setex", "mget", "del", "exists", "expire", "pexpire", "publish", "subscribe",
    "unsubscribe", "psubscribe", "punsubscribe", "evalsha", "script|load", "script|exists",
    "time",
)
# fmt: on
# Redis 7.2 and Valkey know it and redis-py calls it; older servers refuse a rule that names it.
NEWER_COMMANDS = ("client|setinfo",)


def key_prefix(device_id: int) -> str:
    return f"dev.{device_id}."


def user_name(device_id: int) -> str:
    return f"edgewise-device-{device_id}"


def new_password() -> str:
    return secrets.token_urlsafe(32)


def device_url(user: str, password: str) -> str:
    """The broker's address as a device reaches it, with its own user and password."""
    return _address(f"{quote(user)}:{quote(password)}@")


def public_address() -> str:
    """The broker's address as a device reaches it, without anybody's password."""
    return _address("")


def _address(user_info: str) -> str:
    parts = urlsplit(settings.DEVICE_REDIS_PUBLIC_URL)
    host = parts.hostname or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    where = f"{user_info}{host}:{parts.port or 6379}"
    # No query: what it says of certificates is true on the server alone.
    return str(urlunsplit((parts.scheme, where, parts.path, "", "")))


def _rules(device_id: int, password_hash: str, commands: Iterable[str]) -> list[str]:
    prefix = key_prefix(device_id)
    database = urlsplit(settings.DEVICE_REDIS_URL).path.strip("/") or "0"
    return [
        "reset",
        "on",
        f"#{password_hash}",
        "resetchannels",
        f"~{prefix}*",
        f"&{prefix}*",
        # A PSUBSCRIBE pattern is compared literally, so these two must be spelled out.
        f"&{prefix}/{database}.celery.pidbox",
        f"&{prefix}/{database}.celeryev/worker.*",
        "-@all",
        *(f"+{command}" for command in commands),
    ]


@contextmanager
def _admin() -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(settings.DEVICE_REDIS_URL, socket_timeout=5)
    try:
        yield client
    finally:
        client.close()


def set_user(device_id: int, password_hash: str) -> None:
    """Create or renew the broker user of a device. Raises redis.RedisError if it cannot."""
    with _admin() as client:
        _set_user(client, device_id, password_hash)


def _set_user(client: redis.Redis, device_id: int, password_hash: str) -> None:
    name = user_name(device_id)
    try:
        rules = _rules(device_id, password_hash, (*COMMANDS, *NEWER_COMMANDS))
        client.execute_command("ACL", "SETUSER", name, *rules)
    except redis.ResponseError:
        client.execute_command("ACL", "SETUSER", name, *_rules(device_id, password_hash, COMMANDS))


def drop_user(device_id: int) -> None:
    """Remove the broker user, its connections and whatever it left behind."""
    with _admin() as client:
        _drop_user(client, device_id)


def _drop_user(client: redis.Redis, device_id: int) -> None:
    client.execute_command("ACL", "DELUSER", user_name(device_id))
    for key in client.scan_iter(match=f"{key_prefix(device_id)}*", count=500):
        client.delete(key)


def restore_users() -> int:
    """Set the users again that a restarted broker forgot. Returns how many were missing."""
    with _admin() as client:
        known = _known_users(client)
        missing = [
            credential
            for credential in Credential.objects.filter(device__revoked_at=None)
            if credential.broker_user not in known
        ]
        for credential in missing:
            _set_user(client, credential.device_id, credential.broker_password_hash)
    return len(missing)


def drop_revoked_users() -> int:
    """Remove the users of revoked devices that the broker could not be told of in time."""
    with _admin() as client:
        known = _known_users(client)
        revoked = Device.objects.exclude(revoked_at=None).values_list("pk", flat=True)
        stale = [pk for pk in revoked if user_name(pk) in known]
        for device_id in stale:
            _drop_user(client, device_id)
    return len(stale)


def drop_gone() -> int:
    """Remove users and keys of devices that are revoked or no more; returns how many of them."""
    with _admin() as client:
        known = {_id_of_user(name) for name in _known_users(client)}
        known |= {_id_of_key(key) for key in client.scan_iter(match="dev.*", count=1000)}
        here = Device.objects.filter(revoked_at=None).values_list("pk", flat=True)
        gone = known - set(here) - {None}
        for device_id in gone:
            if device_id is not None:
                _drop_user(client, device_id)
    return len(gone)


def _id_of_user(name: str) -> int | None:
    found = re.fullmatch(r"edgewise-device-(\d+)", name)
    return int(found[1]) if found else None


def _id_of_key(key: bytes) -> int | None:
    found = re.match(rb"dev\.(\d+)\.", key)
    return int(found[1]) if found else None


def _known_users(client: redis.Redis) -> set[str]:
    names = client.execute_command("ACL", "USERS")
    return {name.decode() if isinstance(name, bytes) else str(name) for name in names}


@dataclass(frozen=True)
class DeviceMessage:
    """A signed message for one device; ``kind`` is work or cancel."""

    kind: str
    device_id: int
    envelope: dict[str, str]


class DevicePublisher(Protocol):
    """Carries messages to their devices; raises one of BROKER_ERRORS where it cannot."""

    def __call__(self, messages: Sequence[DeviceMessage]) -> None: ...


def publish(messages: Sequence[DeviceMessage]) -> None:
    offers = [message for message in messages if message.kind == "work"]
    if offers:
        _push(offers)
    for message in messages:
        if message.kind != "work":
            _broadcast(message)


def _push(offers: Sequence[DeviceMessage]) -> None:
    """All offers in one exchange with the broker."""
    with _sending().pipeline(transaction=False) as pipe:
        for offer in offers:
            text = task_message(WORK_TASK, [offer.envelope], WORK_QUEUE)
            pipe.lpush(f"{key_prefix(offer.device_id)}{WORK_QUEUE}", text)
        pipe.execute()


@lru_cache(maxsize=1)
def _client(url: str) -> redis.Redis:
    """The connection that offers leave by, kept for the life of the process."""
    once = Retry(NoBackoff(), 1)  # the connection may have died since the last offer
    return redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=3, retry=once)


def _sending() -> redis.Redis:
    return _client(settings.DEVICE_REDIS_URL)


def _broadcast(message: DeviceMessage) -> None:
    # Celery's own broadcast would send over its application's pool, which knows no device.
    with _connection(message.device_id) as connection:
        mailbox = Mailbox("celery", type="fanout", connection=connection, serializer="json")
        mailbox.abcast(CANCEL_COMMAND, {"envelope": message.envelope})


@contextmanager
def _connection(device_id: int) -> Iterator[Connection]:
    options: dict[str, Any] = {
        "global_keyprefix": key_prefix(device_id),
        "socket_connect_timeout": 3,
        "socket_timeout": 10,
        # One more attempt and no pause: whatever is not sent is sent by the reconcile pass.
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
    """Tell (device, assignment) pairs that there is work. False where nobody could be told."""
    return _publish([_signed("work", device, assignment) for device, assignment in assignments])


def cancel(device_id: int, assignment: str, reason: str) -> bool:
    """Tell a device to stop. The answer to its next measurements says so too."""
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


def password_hash(password: str) -> str:
    return hashed(password)
