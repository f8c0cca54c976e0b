"""Starts the server's processes and the devices' agents."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import httpx

from fedcore.formats.line_messages import PING_S, PONG_S
from workers.stack.embedded import start_broker
from workers.stack.processes import Processes, StartError, free_port, wait_for_port

SERVER_PARTS = ("web", "coordinator", "beat", "aggregate")
PREFERRED_WEB_PORT = 8000
BROKER = "broker-"
# A line whose device does not answer a ping ends; compression would cost memory on each.
WEBSOCKET_OPTIONS = (
    *("--ws", "websockets-sansio", "--ws-max-size", "262144", "--ws-per-message-deflate", "false"),
    *("--ws-ping-interval", f"{PING_S:g}", "--ws-ping-timeout", f"{PONG_S:g}"),
)
PROFILE = "profile.json"


@dataclass
class Stack:
    """A site in one folder: database, artefacts, logs, secrets, and the agents' state.

    Starting it again in the same folder continues with the same data and, if they are free, the
    same ports. ``extra_env`` reaches every server process; ``agent_module`` is run as the agent.
    """

    folder: Path
    extra_env: Mapping[str, str] = field(default_factory=dict)
    web_port: int = PREFERRED_WEB_PORT
    agent_module: str = "workers.agent"
    web_workers: int = 1
    profile: ClassVar[bytes] = b""  # as measured by this process's first agent, on any site

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes = Processes(self.folder / "log")
        # Ports and secrets of earlier starts; ports that are in use now are replaced.
        path = self.folder / "stack.json"
        stored: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        ports = {"web_port": self.web_port, "site_port": 0}
        for name, preferred in ports.items():
            stored[name] = str(free_port(int(stored.get(name, preferred))))
        for name in ("secret_key", "site_password"):
            stored.setdefault(name, secrets.token_urlsafe(32))
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(stored, indent=1))
        temporary.chmod(0o600)
        temporary.replace(path)
        self.settings = stored

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['web_port']}"

    @property
    def env(self) -> dict[str, str]:
        """The environment of the server's processes."""
        site = f"redis://:{self.settings['site_password']}@127.0.0.1:{self.settings['site_port']}/0"
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            "EDGEWISE_VAR_DIR": str(self.folder / "var"),
            "EDGEWISE_SECRET_KEY": self.settings["secret_key"],
            "EDGEWISE_URL": self.url,
            "DATABASE_URL": f"sqlite:///{self.folder / 'var' / 'edgewise.sqlite3'}",
            "REDIS_URL": site,
            "PYTHONUNBUFFERED": "1",
            **self.extra_env,
        }

    def manage(self, *arguments: str, **extra_env: str) -> str:
        """Run a management command; raises StartError with its output if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            env={**self.env, **extra_env},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StartError(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Start brokers, database and server; returns when the site answers."""
        self.start_brokers()
        (self.folder / "var").mkdir(exist_ok=True)
        self.manage("migrate", "--verbosity", "0")
        self.manage("collectstatic", "--noinput", "--verbosity", "0")
        for part in SERVER_PARTS:
            self.start_part(part)
        self.wait_until_up()

    @property
    def managed_brokers(self) -> tuple[str, ...]:
        """The brokers that this stack starts: those that ``extra_env`` does not name."""
        variables = {"site": "REDIS_URL"}
        return tuple(name for name, key in variables.items() if key not in self.extra_env)

    def start_brokers(self) -> None:
        for name in self.managed_brokers:
            self.start_broker(name)

    def start_broker(self, name: str) -> None:
        """Start or restart one of ``managed_brokers``, without its old data."""
        port, password = int(self.settings[f"{name}_port"]), self.settings[f"{name}_password"]
        folder = self.folder / "brokers"
        start_broker(self.processes, BROKER + name, port, password, folder)

    def start_part(self, part: str) -> None:
        """Start or restart one of the server's parts."""
        self.processes.start(part, self.command(part), self.env)

    def command(self, part: str) -> list[str]:
        """The command that starts one of the server's parts."""
        if part == "web":
            return [
                *(sys.executable, "-m", "uvicorn", "webapp.asgi:application"),
                *("--host", "127.0.0.1", "--port", self.settings["web_port"]),
                *("--workers", str(self.web_workers)),
                *("--lifespan", "off", "--no-access-log", "--timeout-graceful-shutdown", "2"),
                "--no-proxy-headers",
                *WEBSOCKET_OPTIONS,
            ]
        if part == "beat":
            schedule = str(self.folder / "var" / "beat")
            beat = [sys.executable, "-m", "celery", "-A", "workers.coordinator.app", "beat"]
            return [*beat, "-s", schedule, "--pidfile=", "-l", "WARNING"]
        worker = [sys.executable, "-m", "celery", "-A", f"workers.{part}.app", "worker"]
        worker += ["-Q", part, "-n", f"{part}@%h", "-c", "1", "--without-gossip"]
        return [*worker, "--without-mingle", "-l", "INFO"]

    def wait_until_up(self, limit_s: float = 60.0) -> None:
        wait_for_port(self.processes, "web", int(self.settings["web_port"]), limit_s)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for part in SERVER_PARTS:
                self.processes.check(part)
            if httpx.get(f"{self.url}/login/", timeout=30).status_code == 200:
                return
            time.sleep(0.1)
        raise StartError(f"the site at {self.url} does not respond after {limit_s:.0f} s")

    def agent_env(self, name: str) -> dict[str, str]:
        """The environment of an agent: its own state folder, none of the server's secrets."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("EDGEWISE_")}
        state = self.folder / "devices" / name
        return {**env, "EDGEWISE_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}

    def enrol_agent(self, name: str, token: str, datasets: Mapping[str, str]) -> None:
        """Run the agent's enrolment command.

        The first agent measures this machine's hardware; the others reuse its profile.
        """
        profile = self.folder / "devices" / name / PROFILE
        if Stack.profile and not profile.exists():
            profile.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            profile.write_bytes(Stack.profile)
        options = []
        for key, value in datasets.items():
            options += ["--dataset", f"{key}={value}"]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "workers.agent", "enroll", "--server", self.url),
                *("--token", token, "--name", name, "--threads", "1", *options),
            ],
            env=self.agent_env(name),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StartError(f"enrolling {name} failed:\n{done.stdout}{done.stderr}")
        Stack.profile = profile.read_bytes()

    def start_agent(self, name: str) -> None:
        """Several devices share this machine, so each trains with one thread."""
        command = [*(sys.executable, "-m", self.agent_module, "run"), "--server", self.url]
        command += ["--threads", "1"]
        self.processes.start(f"agent-{name}", command, self.agent_env(name))

    def stop(self) -> None:
        """Stop everything; the brokers last, because workers sign off through them."""
        names = list(self.processes.running)
        brokers = [name for name in names if name.startswith(BROKER)]
        self.processes.stop(*(name for name in names if name not in brokers))
        self.processes.stop(*brokers)
