"""A site with echoing agents, ready for jobs."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.orchestration.virtual import CREDENTIALS, DATASETS
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.server_clock import Clock
from workers.agent.state.credentials import from_enrolment
from workers.stack.processes import StartError
from workers.stack.site import Site, make_token
from workers.stack.stack import Stack

ROWS = 40
ONLINE_WITHIN_S = 180.0


@dataclass(frozen=True)
class EchoSite:
    stack: Stack
    site: Site
    devices: int

    def server_pids(self) -> dict[str, int]:
        """Everything that is not an agent, brokers included."""
        running = self.stack.processes.running
        return {name: item.pid for name, item in running.items() if not name.startswith("agent")}

    def agent_pids(self) -> dict[str, int]:
        running = self.stack.processes.running
        return {name: item.pid for name, item in running.items() if name.startswith("agent")}


@contextmanager
def echoing_site(folder: Path, devices: int, virtual: bool = False) -> Iterator[EchoSite]:
    """Start all of it and wait until ``devices`` are online.

    They are processes of their own, or, where ``virtual``, the threads of one process.
    """
    env = {"EDGEWISE_THROTTLE_ENROL": "100000/min", "EDGEWISE_THROTTLE_PEOPLE": "100000/min"}
    # One process of Python answers some 150 calls a second; a fleet has more of them.
    web_workers = 2 if virtual else 1
    stack = Stack(
        folder,
        env,
        web_port=0,
        agent_module="benchmarks.orchestration.echo",
        web_workers=web_workers,
    )
    try:
        stack.start()
        password = secrets.token_urlsafe(12)
        stack.manage("ensure_admin", EDGEWISE_ADMIN_PASSWORD=password)
        site = Site(stack.url, make_token(stack.url, "admin", password, "bench"))
        names = [f"echo-{number:03d}" for number in range(devices)]
        (_start_virtual if virtual else _start_agents)(stack, site, names)
        deadline = time.monotonic() + ONLINE_WITHIN_S
        while time.monotonic() < deadline:
            rows = site.all_rows("/devices/")
            if sum(row["presence"] == "online" for row in rows) >= devices:
                break
            time.sleep(0.3)
        else:
            raise StartError(
                f"fewer than {devices} devices came online within {ONLINE_WITHIN_S:.0f} s"
            )
        yield EchoSite(stack, site, devices)
    finally:
        stack.stop()


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


def _start_virtual(stack: Stack, site: Site, names: Sequence[str]) -> None:
    folder = stack.folder / "virtual"
    folder.mkdir(exist_ok=True)
    server = ServerApi(Address(stack.url))
    with (folder / CREDENTIALS).open("w") as out:
        for name in names:
            body = {"token": site.enrolment_token(name), "name": name, "agent_version": "bench"}
            answer = server.enrol({**body, "profile": {}, "datasets": DATASETS})
            known = from_enrolment(stack.url, answer, Clock().iso())
            out.write(json.dumps(asdict(known)) + "\n")
    command = [sys.executable, "-m", "benchmarks.orchestration.virtual", str(folder)]
    stack.processes.start("agent-virtual", command, stack.agent_env("virtual"))
