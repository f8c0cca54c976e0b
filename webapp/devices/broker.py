"""The devices' broker: one user per device that sees its own keys and channels only.

``tests/stack/test_broker_acl.py`` tries to break out, against a real server.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import redis
from celery import Celery
from django.conf import settings
from kombu.connection import Connection
from kombu.pidbox import Mailbox

from webapp.broker import BROKER_ERRORS
from webapp.devices.envelope import sign
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

_app = Celery("edgewise-devices", set_as_current=False)
_app.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)


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


def _known_users(client: redis.Redis) -> set[str]:
    names = client.execute_command("ACL", "USERS")
    return {name.decode() if isinstance(name, bytes) else str(name) for name in names}


class DevicePublisher(Protocol):
    def __call__(self, kind: str, device_id: int, envelope: dict[str, str]) -> None: ...


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


def publish(kind: str, device_id: int, envelope: dict[str, str]) -> None:
    with _connection(device_id) as connection:
        if kind == "work":
            _app.send_task(
                WORK_TASK, args=[envelope], queue=WORK_QUEUE, connection=connection, retry=False
            )
        else:
            # Celery's own broadcast would send over its application's pool, which knows no device.
            mailbox = Mailbox("celery", type="fanout", connection=connection, serializer="json")
            mailbox.abcast(CANCEL_COMMAND, {"envelope": envelope})


# Replaced by an outbox in tests.
publisher: DevicePublisher = publish


def offer(device_id: int, assignment: str) -> bool:
    """Tell a device that there is work. False where the broker could not be reached."""
    return _publish("work", device_id, sign("work", device_id, assignment))


def cancel(device_id: int, assignment: str, reason: str) -> bool:
    """Tell a device to stop. The answer to its next measurements says so too."""
    return _publish("cancel", device_id, sign("cancel", device_id, assignment, reason=reason))


def _publish(kind: str, device_id: int, envelope: dict[str, str]) -> bool:
    try:
        publisher(kind, device_id, envelope)
    except BROKER_ERRORS as error:
        log.warning("the devices' broker is down, %s for %s waits: %s", kind, device_id, error)
        return False
    return True


def password_hash(password: str) -> str:
    return hashed(password)
