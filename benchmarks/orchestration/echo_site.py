"""A site with echoing agents, ready for jobs."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.orchestration.virtual import CONNECTED, CREDENTIALS, OPENINGS_PER_S
from workers.stack.processes import StartError
from workers.stack.site import Site, make_token
from workers.stack.stack import Stack

ROWS = 40
ONLINE_WITHIN_S = 180.0
VIRTUAL = "agent-virtual"
UNLIMITED = {"EDGEWISE_THROTTLE_ENROL": "100000/min", "EDGEWISE_THROTTLE_PEOPLE": "100000/min"}


@dataclass(frozen=True)
class EchoSite:
    """``devices``: how many of them take part in a round."""

    stack: Stack
    site: Site
    devices: int

    def server_pids(self) -> dict[str, int]:
        """Everything that is neither an agent nor an attacker; the broker too."""
        running = self.stack.processes.running
        outside = ("agent", "flood")
        return {name: item.pid for name, item in running.items() if not name.startswith(outside)}

    def agent_pids(self) -> dict[str, int]:
        running = self.stack.processes.running
        return {name: item.pid for name, item in running.items() if name.startswith("agent")}


@contextmanager
def empty_site(
    folder: Path, web_workers: int = 1, env: Mapping[str, str] | None = None
) -> Iterator[EchoSite]:
    """A started site without devices."""
    stack = Stack(
        folder,
        {**UNLIMITED, **(env or {})},
        web_port=0,
        agent_module="benchmarks.orchestration.echo",
        web_workers=web_workers,
    )
    try:
        stack.start()
        password = secrets.token_urlsafe(12)
        stack.manage("ensure_admin", EDGEWISE_ADMIN_PASSWORD=password)
        site = Site(stack.url, make_token(stack.url, "admin", password, "bench"))
        yield EchoSite(stack, site, 0)
    finally:
        stack.stop()


@contextmanager
def echoing_site(
    folder: Path, devices: int, virtual: bool = False, web_workers: int = 1
) -> Iterator[EchoSite]:
    """Start all of it and wait until ``devices`` are online.

    They are processes of their own, or, where ``virtual``, all in one process.
    """
    with empty_site(folder, web_workers) as bench:
        if virtual:
            enrol_virtual(bench.stack, devices)
            start_virtual(bench.stack)
            wait_until_connected(bench.stack, devices)
        else:
            _start_agents(bench.stack, bench.site, [f"echo-{n:03d}" for n in range(devices)])
            _wait(bench.site.online_devices, devices, ONLINE_WITHIN_S)
        yield EchoSite(bench.stack, bench.site, devices)


def _wait(count: Callable[[], int], devices: int, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while (online := count()) < devices:
        if time.monotonic() > deadline:
            raise StartError(f"{online} of {devices} devices came online within {limit_s:.0f} s")
        time.sleep(0.3)


def _start_agents(stack: Stack, site: Site, names: Sequence[str]) -> None:
    for name in names:
        # Devices after the first take its measured profile: they are the same machine.
        first = names[0]
        data = stack.folder / "echo.jsonl"
        if not data.exists():
            row = json.dumps({"dialogue": "a text of some words", "summary": "a text"})
            data.write_text(f"{row}\n" * ROWS)
        state = stack.folder / "devices" / name
        if name != first:
            state.mkdir(parents=True, mode=0o700)
            for part in ("profile.json", "datasets.json"):
                shutil.copy(stack.folder / "devices" / first / part, state / part)
        datasets = {"echo": f"{data}:dialogue,summary,echo"}
        stack.enrol_agent(name, site.enrolment_token(name), datasets)
    for name in names:
        stack.start_agent(name)


def enrol_virtual(stack: Stack, devices: int) -> None:
    """Enrol devices for ``start_virtual``, in a process with the site's settings."""
    folder = _virtual_folder(stack)
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.orchestration.enrolments"]
    command += [str(folder / CREDENTIALS), str(devices), "virtual"]
    subprocess.run(command, env=stack.env, check=True)


def start_virtual(stack: Stack) -> None:
    command = [sys.executable, "-m", "benchmarks.orchestration.virtual"]
    command.append(str(_virtual_folder(stack)))
    stack.processes.start(VIRTUAL, command, stack.agent_env("virtual"))


def wait_until_connected(stack: Stack, devices: int) -> None:
    """Until the site has greeted all virtual devices. Raises StartError."""
    path = _virtual_folder(stack) / CONNECTED

    def connected() -> int:
        stack.processes.check(VIRTUAL)
        return int(path.read_text()) if path.exists() else 0

    _wait(connected, devices, ONLINE_WITHIN_S + 4 * devices / OPENINGS_PER_S)


def _virtual_folder(stack: Stack) -> Path:
    return stack.folder / "virtual"
