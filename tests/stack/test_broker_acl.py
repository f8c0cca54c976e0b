"""What the broker user of a device lets it do, tried on real servers by a device that attacks."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from tests.conftest import RealBroker
from tests.stack.broker_site import ATTACKER, SECRET, VICTIM, Site, refuses, server, site
from webapp.devices.broker_users import key_prefix, new_password, set_user, user_name
from webapp.devices.models import hashed

pytestmark = pytest.mark.stack
__all__ = ["server", "site"]


def commands_on(prefix: str) -> list[tuple[Any, ...]]:
    """Every kind of access to a device's keys; the device itself may use each."""
    return [
        ("GET", f"{prefix}text"),
        ("MGET", f"{prefix}text", f"{prefix}text"),
        ("SET", f"{prefix}other", "x"),
        ("SETEX", f"{prefix}other", 9, "x"),
        ("EXISTS", f"{prefix}text"),
        ("EXPIRE", f"{prefix}other", 9),
        ("PEXPIRE", f"{prefix}other", 9000),
        ("LPUSH", f"{prefix}work", "a task"),
        ("RPUSH", f"{prefix}work", "a task"),
        ("LLEN", f"{prefix}work"),
        ("RPOP", f"{prefix}work"),
        ("BRPOP", f"{prefix}work", f"{prefix}work\x06\x163", 1),
        ("HGET", f"{prefix}unacked", "tag"),
        ("HSET", f"{prefix}unacked", "tag2", "x"),
        ("HLEN", f"{prefix}unacked"),
        ("HDEL", f"{prefix}unacked", "tag2"),
        ("SMEMBERS", f"{prefix}_kombu.binding.work"),
        ("SADD", f"{prefix}_kombu.binding.celery.pidbox", "me"),
        ("SREM", f"{prefix}_kombu.binding.work", "x"),
        ("ZADD", f"{prefix}unacked_index", 2, "x"),
        ("ZRANGE", f"{prefix}unacked_index", 0, -1),
        ("ZRANGEBYSCORE", f"{prefix}unacked_index", 0, 9),
        ("ZREVRANGEBYSCORE", f"{prefix}unacked_index", 9, 0),
        ("ZREM", f"{prefix}unacked_index", "x"),
        ("WATCH", f"{prefix}text"),
        ("DEL", f"{prefix}other"),
        ("PUBLISH", f"{prefix}/0.celery.pidbox", "stop"),
    ]


def test_own_keys_are_open(site: Site, subtests: Any) -> None:
    for command in commands_on(key_prefix(ATTACKER)):
        with subtests.test(command[0]):
            site.attacker.execute_command(*command)


def test_keys_of_other_devices_are_closed(site: Site, subtests: Any) -> None:
    before = site.admin.lrange(f"{key_prefix(VICTIM)}work", 0, -1)
    for command in commands_on(key_prefix(VICTIM)):
        with subtests.test(command[0]):
            refuses(site.attacker, *command)
    assert site.admin.lrange(f"{key_prefix(VICTIM)}work", 0, -1) == before
    assert not site.admin.exists(f"{key_prefix(VICTIM)}other")


@pytest.mark.parametrize("key", ["work", "dev.", "dev.1", "dev.11.work", "celery", "unacked", ""])
def test_keys_of_nobody_are_closed(site: Site, key: str) -> None:
    refuses(site.attacker, "LPUSH", key, "x")
    refuses(site.attacker, "GET", key)


def test_one_foreign_key_refuses_the_command(site: Site) -> None:
    mine, others = (
        f"{key_prefix(ATTACKER)}text",
        f"{key_prefix(VICTIM)}text",
    )
    refuses(site.attacker, "MGET", mine, others)
    refuses(site.attacker, "BRPOP", f"{key_prefix(ATTACKER)}empty", others, 1)
    with pytest.raises(redis.RedisError), site.attacker.pipeline(transaction=True) as pipe:
        pipe.set(mine, "changed")
        pipe.set(others, "changed")
        pipe.execute()
    assert site.admin.get(others) == SECRET.encode()


CHANNELS = [
    f"{key_prefix(VICTIM)}/0.celery.pidbox",
    f"{key_prefix(VICTIM)}/0.celeryev/worker.heartbeat",
    "/0.celery.pidbox",
    "__keyspace@0__:dev.12.work",
    "edgewise",
]
PATTERNS = ["*", "dev.*", "dev.1*", "dev.12.*", "dev.?2.*", "__key*__:*", "dev.1.*/../dev.12.*"]


def test_channels_of_other_devices_are_closed(site: Site, subtests: Any) -> None:
    for channel in CHANNELS:
        with subtests.test(channel):
            refuses(site.attacker, "PUBLISH", channel, "stop")
            refuses(site.attacker, "SUBSCRIBE", channel)
            refuses(site.attacker, "PSUBSCRIBE", channel)
            refuses(site.attacker, "SPUBLISH", channel, "stop")
            refuses(site.attacker, "SSUBSCRIBE", channel)
    for pattern in PATTERNS:
        with subtests.test(pattern):
            refuses(site.attacker, "PSUBSCRIBE", pattern)


FORBIDDEN = [
    "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "INFO", "CONFIG GET *", "CONFIG SET maxmemory 1",
    "ACL LIST", "ACL WHOAMI", "ACL SETUSER me on nopass ~* &* +@all", "ACL DELUSER default",
    "EVAL return(1) 0", "EVAL_RO return(1) 0", "FUNCTION LIST", "SCRIPT FLUSH", "SCRIPT KILL",
    "FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "SELECT 1", "MOVE dev.1.text 1", "SHUTDOWN NOSAVE",
    "MONITOR", "CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1",
    "CLIENT NO-EVICT on", "CLIENT TRACKING on", "PUBSUB CHANNELS", "PUBSUB NUMSUB x", "SAVE",
    "BGSAVE", "BGREWRITEAOF", "REPLICAOF 127.0.0.1 1", "PSYNC ? -1", "SYNC", "MODULE LIST",
    "MIGRATE 127.0.0.1 1 dev.1.text 0 9", "DUMP dev.1.text", "RESTORE dev.1.x 0 x",
    "OBJECT ENCODING dev.1.text", "RENAME dev.1.text dev.12.text", "COPY dev.1.text dev.12.text",
    "SORT dev.1.work GET dev.12.*", "LMOVE dev.1.work dev.12.work LEFT LEFT",
    "RPOPLPUSH dev.1.work dev.12.work", "SUNIONSTORE dev.12.x dev.1.y", "LATENCY LATEST",
    "SLOWLOG GET", "COMMAND", "CLUSTER INFO", "WAIT 0 0", "LOLWUT", "XADD dev.1.s * a b",
]  # fmt: skip


def test_server_wide_commands_are_refused(site: Site, subtests: Any) -> None:
    for line in FORBIDDEN:
        with subtests.test(line):
            refuses(site.attacker, *line.split())
    assert site.admin.get(f"{key_prefix(VICTIM)}text") == SECRET.encode()


def test_scripts_have_the_rights_of_their_caller(site: Site, subtests: Any) -> None:
    """Scripts may be loaded, since Celery's transport needs some; they open nothing."""
    victim = key_prefix(VICTIM)
    scripts = {
        "a key nobody declared": f"return redis.call('get', '{victim}text')",
        "a key as an argument": "return redis.call('get', ARGV[1])",
        "a list of keys": "return redis.call('keys', '*')",
        "a message": f"return redis.call('publish', '{victim}/0.celery.pidbox', 'stop')",
        "another database": "return redis.call('select', 1)",
        "a quiet try": f"return redis.pcall('get', '{victim}text')",
        "a task": f"return redis.call('lpush', '{victim}work', 'a task')",
    }
    for what, script in scripts.items():
        with subtests.test(what):
            sha = site.attacker.script_load(script)
            with pytest.raises(redis.ResponseError):
                print(site.attacker.evalsha(sha, 0, f"{victim}text"))
    sha = site.attacker.script_load("return redis.call('get', KEYS[1])")
    with pytest.raises(redis.ResponseError):
        site.attacker.evalsha(sha, 1, f"{victim}text")
    assert site.attacker.evalsha(sha, 1, f"{key_prefix(ATTACKER)}text") == SECRET.encode()
    assert site.admin.llen(f"{victim}work") == 1


def test_no_user_can_log_in_as_another(site: Site) -> None:
    for user in ("default", user_name(VICTIM)):
        for password in ("", "x", hashed("x")):
            refuses(site.attacker, "AUTH", user, password)
    stored = site.admin.acl_getuser(user_name(VICTIM))
    assert stored is not None
    assert "nopass" not in stored["flags"]
    assert len(stored["passwords"]) == 1


def test_server_stores_only_password_hashes(server: RealBroker) -> None:
    admin = redis.Redis.from_url(server.url)
    password = new_password()
    set_user(ATTACKER, hashed(password))
    stored = admin.acl_getuser(user_name(ATTACKER))
    assert stored is not None
    assert stored["passwords"] == ["#" + hashed(password)] or stored["passwords"] == [
        hashed(password)
    ]
    assert password not in str(admin.acl_list())
