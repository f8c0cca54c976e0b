"""A real site for lines: uvicorn processes on this test's database, and a broker of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection

from tests.conftest import VAR_DIR, free_port
from webapp.devices import device_messages
from workers.stack.embedded import start_broker
from workers.stack.processes import Processes, wait_for_port
from workers.stack.stack import WEBSOCKET_OPTIONS

BROKER, PASSWORD = "broker", "for-tests-only"
WEB = "web"


@dataclass
class Site:
    """``start_web`` starts one more web process. All share database, broker and signing key."""

    folder: Path
    env: Mapping[str, str]
    broker_port: int = field(default_factory=free_port)
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.processes = Processes(self.folder / "log")

    @property
    def broker_url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.broker_port}/0"

    def start_broker(self) -> None:
        start_broker(self.processes, BROKER, self.broker_port, PASSWORD, self.folder)

    def start_web(self, name: str = WEB, **settings: str) -> None:
        port = self.ports.setdefault(name, free_port())
        command = [sys.executable, "-m", "uvicorn", "webapp.asgi:application"]
        command += ["--port", str(port), "--lifespan", "off", "--no-access-log"]
        command += ["--timeout-graceful-shutdown", "2", *WEBSOCKET_OPTIONS]
        env = {**self.env, "REDIS_URL": self.broker_url, **settings}
        self.processes.start(name, command, env)
        wait_for_port(self.processes, name, port, 60)
        # The first request loads the URLs and opens the database.
        httpx.get(f"http://127.0.0.1:{port}/api/v1/jobs/", timeout=60)

    def url(self, name: str = WEB) -> str:
        return f"ws://127.0.0.1:{self.ports[name]}/ws/device/"

    def log(self, name: str = WEB) -> str:
        return self.processes.log_path(name).read_text()

    def stop(self, *names: str) -> None:
        self.processes.stop(*names)


@pytest.fixture(scope="module")
def site_processes(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A broker and one web process for all tests of a file."""
    assert connection.vendor == "sqlite"
    folder = tmp_path_factory.mktemp("site")
    env = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "EDGEWISE_SECRET_KEY": "for-tests-only-" + "0123456789" * 5,
        "EDGEWISE_SIGNING_KEY_FILE": str(VAR_DIR / "signing-key.pem"),
        "EDGEWISE_VAR_DIR": str(folder),
    }
    site = Site(folder, env)
    site.start_broker()
    site.start_web()
    yield site
    site.stop(*reversed(list(site.processes.running)))


@pytest.fixture
def site(
    transactional_db: None, site_processes: Site, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Site:
    """The site, whose messages to devices this process publishes too."""
    settings.REDIS_URL = site_processes.broker_url
    folder = str(site_processes.folder / "artefacts")
    artefacts = {**settings.STORAGES["artefacts"], "OPTIONS": {"location": folder}}
    settings.STORAGES = {**settings.STORAGES, "default": artefacts, "artefacts": artefacts}
    location = str(site_processes.folder / "artefacts")
    artefacts = {**settings.STORAGES["artefacts"], "OPTIONS": {"location": location}}
    settings.STORAGES = {**settings.STORAGES, "artefacts": artefacts}
    monkeypatch.setattr(device_messages, "publisher", device_messages.publish)
    return site_processes
