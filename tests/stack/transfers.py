"""A real web server, a device of it, and large frames that take no room on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection
from django.utils import timezone

from fedcore.rounds.types import RoundPolicy
from tests.conftest import Enrolled, free_port
from webapp.devices.models import Device
from webapp.jobs.artefacts.partial_uploads import received_bytes
from webapp.jobs.artefacts.store import incoming_dir, store
from webapp.jobs.models import Artefact, ArtefactKind, Assignment, Job, Participant, Round
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.http.server_api import Address, ServerApi
from workers.stack.stack import WEBSOCKET_OPTIONS

MEGABYTE = 2**20


def write_frame(path: Path, tensor_bytes: int, **meta: str) -> str:
    """One fp32 tensor of zeros that take no room on the disk; returns the file's SHA-256."""
    entry = {"dtype": "F32", "shape": [tensor_bytes // 4], "data_offsets": [0, tensor_bytes]}
    raw = json.dumps({"__metadata__": meta, "weight": entry}).encode()
    raw += b" " * (-len(raw) % 8)
    head = struct.pack("<Q", len(raw)) + raw
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + tensor_bytes)
    digest, zeros = hashlib.sha256(head), bytes(MEGABYTE)
    for _ in range(tensor_bytes // MEGABYTE):
        digest.update(zeros)
    return digest.hexdigest()


@dataclass
class Web:
    """uvicorn on this test's database and folders, on one port over all its lives."""

    env: dict[str, str]
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "webapp.asgi:application", "--lifespan", "off"]
        with (self.folder / "web.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *WEBSOCKET_OPTIONS],
                env=self.env,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{self.url}/api/v1/device/hello/", timeout=10)
                return
            except httpx.TransportError:
                assert time.monotonic() < deadline, (self.folder / "web.log").read_text()
                time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def web_process(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A web server for all tests of a file; it shares this process's database file."""
    assert connection.vendor == "sqlite"
    folder = tmp_path_factory.mktemp("web")
    env = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "EDGEWISE_SECRET_KEY": "for-tests-only-" + "0123456789" * 5,
        "EDGEWISE_VAR_DIR": str(folder),
        "EDGEWISE_UPLOAD_WINDOW_S": "3",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "TMPDIR": str(folder),
    }
    web = Web(env, folder, free_port())
    web.start()
    yield web
    web.kill()


@pytest.fixture
def web(web_process: Web, settings: Any) -> Iterator[Web]:
    """The server, with this test's artefacts in its folder and removed afterwards."""
    folder = web_process.folder
    artefacts = settings.STORAGES["artefacts"]
    in_folder = {
        **artefacts,
        "OPTIONS": {**artefacts["OPTIONS"], "location": str(folder / "artefacts")},
    }
    settings.STORAGES = {**settings.STORAGES, "default": in_folder, "artefacts": in_folder}
    settings.VAR_DIR = folder
    yield web_process
    for name in ("artefacts", "incoming"):
        shutil.rmtree(folder / name, ignore_errors=True)


@dataclass
class Case:
    """A device that has accepted to train, its update, and its way to the server."""

    pi: Enrolled
    part: Assignment
    model: Artefact
    update: Path
    digest: str
    server: ServerApi
    cache: ArtefactCache

    def upload(self, resume: bool = False, check: Callable[[], None] = lambda: None) -> None:
        self.server.upload(str(self.part.pk), self.update, self.digest, check, resume=resume)

    def fetch(self, check: Callable[[], None] = lambda: None) -> Path:
        model = self.model
        return self.cache.fetch(self.server, model.sha256, model.size_bytes, check)

    @property
    def size(self) -> int:
        return self.update.stat().st_size

    @property
    def received_bytes(self) -> int:
        return received_bytes(self.part.pk, self.digest)

    def assert_stored(self) -> None:
        self.part.refresh_from_db()
        assert (self.part.phase, self.part.update_artefact_id) == ("uploading", self.digest)
        assert Artefact.objects.get(pk=self.digest).size_bytes == self.size
        assert list(incoming_dir().iterdir()) == []


@pytest.fixture
def prepare(
    enrolled_device: Callable[..., Enrolled], web: Web, tmp_path: Path
) -> Iterator[Callable[[int], Case]]:
    servers = []

    def make(tensor_bytes: int) -> Case:
        pi = enrolled_device("pi-kitchen")
        path = tmp_path / "model"
        model = store(
            path, write_frame(path, tensor_bytes, kind="global"), ArtefactKind.GLOBAL, "test"
        )
        path.unlink()
        part = accepted(pi, model)
        update = tmp_path / "update"
        meta = {"kind": "update", "job": str(part.round.job_id), "round": "1"}
        digest = write_frame(update, tensor_bytes, **meta, base=model.sha256)
        server = ServerApi(Address(web.url, pi.api_token))
        servers.append(server)
        return Case(pi, part, model, update, digest, server, ArtefactCache(tmp_path / "cache"))

    yield make
    for server in servers:
        server.close()


def accepted(pi: Enrolled, model: Artefact) -> Assignment:
    spec = {"adapter": {"kind": "full"}}  # whatever the model's tensors are called, they travel
    job = Job.objects.create(name="large", spec=spec, phase="running", global_artefact=model)
    Participant.objects.create(job=job, device=pi.device, slot=0, dataset="law", examples=40)
    policy = RoundPolicy(1, 1, 600.0, 600.0, 3).__dict__
    current = Round.objects.create(
        job=job, number=1, phase="collecting", members=[0], policy=policy, base_artefact=model
    )
    Device.objects.filter(pk=pi.device.pk).update(boot_id="boot-1")  # it has said hello
    until = timezone.now()
    return Assignment.objects.create(
        round=current, device=pi.device, slot=0, task="train", phase="accepted", lease_until=until
    )
