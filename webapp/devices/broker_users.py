"""ACL users of the devices' broker: each device sees its own keys and channels only.

``tests/stack/test_broker_acl.py`` tries to break out, against a real server.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit, urlunsplit

import redis
from django.conf import settings

from webapp.devices.models import Credential, Device

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
# redis-py calls it; Redis before 7.2 refuses a rule that names an unknown command.
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
    """The broker's address as a device reaches it, without credentials."""
    return _address("")


def _address(user_info: str) -> str:
    parts = urlsplit(settings.DEVICE_REDIS_PUBLIC_URL)
    host = parts.hostname or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    where = f"{user_info}{host}:{parts.port or 6379}"
    # No query: its certificate settings are paths on the server.
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
    """Remove the broker user, its connections and its keys."""
    with _admin() as client:
        _drop_user(client, device_id)


def _drop_user(client: redis.Redis, device_id: int) -> None:
    client.execute_command("ACL", "DELUSER", user_name(device_id))
    for key in client.scan_iter(match=f"{key_prefix(device_id)}*", count=500):
        client.delete(key)


def restore_users() -> int:
    """Recreate users that a restarted broker has lost; returns how many were missing."""
    with _admin() as client:
        existing = _user_names(client)
        missing = [
            credential
            for credential in Credential.objects.filter(device__revoked_at=None)
            if credential.broker_user not in existing
        ]
        for credential in missing:
            _set_user(client, credential.device_id, credential.broker_password_hash)
    return len(missing)


def drop_revoked_users() -> int:
    """Remove users of revoked devices, where the broker was down at the revocation."""
    with _admin() as client:
        existing = _user_names(client)
        revoked = Device.objects.exclude(revoked_at=None).values_list("pk", flat=True)
        stale = [pk for pk in revoked if user_name(pk) in existing]
        for device_id in stale:
            _drop_user(client, device_id)
    return len(stale)


def drop_orphans() -> int:
    """Remove users and keys of devices that are revoked or deleted; returns how many devices."""
    with _admin() as client:
        names = [
            *_user_names(client),
            *(key.decode(errors="replace") for key in client.scan_iter(match="dev.*", count=1000)),
        ]
        matches = [
            re.match(r"edgewise-device-(\d+)\Z|dev\.(\d+)\.", name, re.ASCII) for name in names
        ]
        device_ids = {int(match[1] or match[2]) for match in matches if match}
        enrolled = Device.objects.filter(revoked_at=None).values_list("pk", flat=True)
        orphans = device_ids - set(enrolled)
        for device_id in orphans:
            _drop_user(client, device_id)
    return len(orphans)


def _user_names(client: redis.Redis) -> set[str]:
    names = client.execute_command("ACL", "USERS")
    return {name.decode() if isinstance(name, bytes) else str(name) for name in names}
