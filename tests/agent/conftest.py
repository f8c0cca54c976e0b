from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.agent.lines import HELLO, Recorder
from tests.agent.stand_in import API_TOKEN, StandIn
from tests.agent.transfers import CONTENT, Site
from workers.agent.agent_errors import Revoked
from workers.agent.agent_settings import CONFIRM_VARIABLE, AgentSettings
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.line.device_line import Line, LineOptions
from workers.agent.line.opening import line_site
from workers.agent.power import nvml, sensor_kinds
from workers.agent.profile import probe
from workers.agent.state import credentials
from workers.agent.state.files import write_json
from workers.agent.status import status

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


def slack() -> float:
    """How much slower than idle this machine may be now; time limits are multiplied by it."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_for(condition: Callable[[], Any], within_s: float = 10.0) -> Any:
    until = time.monotonic() + within_s * slack()
    while not (result := condition()):
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)
    return result


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
                    CONFIRM_VARIABLE: "0.5",
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

    def status(self) -> dict[str, Any]:
        return status(AgentSettings(self.state_dir))

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


@pytest.fixture
def server() -> Iterator[StandIn]:
    stand_in = StandIn()
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


__all__ = ["AgentProcess", "is_gone", "slack", "wait_for"]


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


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def open_to(recorder: Recorder) -> AsyncIterator[Callable[..., Line]]:
    """Starts a line to a server."""
    tasks: list[asyncio.Task[None]] = []

    def start(url: str, silent_s: float = 75.0, ca_file: Path | None = None) -> Line:
        site = line_site(url, API_TOKEN, ca_file)
        line = Line(site, HELLO, recorder, LineOptions(silent_s))
        tasks.append(asyncio.create_task(line.run()))
        return line

    yield start
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Revoked):
            await task
