"""A large update passes through the real web server while its memory stays where it was."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from django.db import connection
from django.utils import timezone

from fedcore.rounds import Policy
from tests.conftest import Enrolled, free_port
from webapp.jobs.artefacts import incoming_dir, store
from webapp.jobs.models import Artefact, ArtefactKind, Assignment, Job, Participant, Round

pytestmark = [pytest.mark.stack, pytest.mark.django_db(transaction=True)]

MEGABYTE = 2**20
TENSOR_BYTES = 96 * MEGABYTE
ALLOWED_GROWTH = 24 * MEGABYTE


def write_frame(path: Path, **meta: str) -> str:
    """One fp32 tensor of TENSOR_BYTES; returns the file's SHA-256."""
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(TENSOR_BYTES // 4)}, path, meta)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def assignment(enrolled_device: Callable[..., Enrolled], tmp_path: Path) -> tuple[Enrolled, Any]:
    """A device that has accepted to train a large model."""
    pi = enrolled_device("pi-kitchen")
    path = tmp_path / "model.safetensors"
    digest = write_frame(path, kind="global")
    model = store(path, digest, ArtefactKind.GLOBAL, "test")
    path.unlink()
    job = Job.objects.create(name="large", spec={}, phase="running", global_artefact=model)
    Participant.objects.create(job=job, device=pi.device, slot=0, dataset="law", examples=40)
    policy = Policy(1, 1, 600.0, 600.0, 3).__dict__
    current = Round.objects.create(
        job=job, number=1, phase="collecting", members=[0], policy=policy, base_artefact=model
    )
    part = Assignment.objects.create(
        round=current,
        device=pi.device,
        slot=0,
        task="train",
        phase="accepted",
        lease_until=timezone.now(),
    )
    return pi, part


@pytest.fixture
def web(settings: Any, tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """uvicorn on this test's database and folders; its address and process."""
    if connection.vendor != "sqlite":
        pytest.skip("shares a database file with the server")
    port = free_port()
    env = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "EDGEWISE_SECRET_KEY": "for-tests-only-" + "0123456789" * 5,
        "EDGEWISE_VAR_DIR": str(tmp_path),
        "REDIS_URL": settings.REDIS_URL,
        "DEVICE_REDIS_URL": settings.DEVICE_REDIS_URL,
        "TMPDIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "uvicorn", "webapp.asgi:application", "--port", str(port)]
    log = (tmp_path / "web.log").open("wb")
    process = subprocess.Popen([*command, "--lifespan", "off"], env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{url}/api/v1/device/hello/", timeout=10)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline, (tmp_path / "web.log").read_text()
            time.sleep(0.1)
    yield url, psutil.Process(process.pid)
    process.kill()
    process.wait()
    log.close()


class Peak:
    """The most memory a process held since now, as the kernel counts it."""

    def __init__(self, process: psutil.Process) -> None:
        self._proc = Path(f"/proc/{process.pid}")
        try:
            (self._proc / "clear_refs").write_text("5")
        except OSError:
            pytest.skip("the peak of a process cannot be reset here")
        self._before = process.memory_info().rss

    @property
    def growth(self) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 - self._before


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while chunk := source.read(MEGABYTE):
            yield chunk


def test_up_and_down(
    assignment: tuple[Enrolled, Assignment], web: tuple[str, psutil.Process], tmp_path: Path
) -> None:
    pi, part = assignment
    url, process = web
    model = part.round.base_artefact
    assert model is not None
    update = tmp_path / "update.safetensors"
    digest = write_frame(
        update, kind="update", job=str(part.round.job_id), round="1", base=model.sha256
    )
    headers = {"Authorization": f"Device {pi.api_token}"}
    with httpx.Client(base_url=f"{url}/api/v1/device", headers=headers, timeout=120) as client:
        # Once small, so that whatever is loaded lazily is there.
        client.get(f"/artefacts/{model.sha256}/", headers={"Range": "bytes=0-9"})
        put = f"/assignments/{part.pk}/update/"
        client.put(put, content=b"x", headers={"X-Content-SHA256": digest})

        peak = Peak(process)
        answer = client.put(
            put,
            content=pieces(update),
            headers={"X-Content-SHA256": digest, "Content-Length": str(update.stat().st_size)},
        )
        assert answer.status_code == 201, answer.text
        assert answer.json() == {"sha256": digest, "size_bytes": update.stat().st_size}
        assert peak.growth < ALLOWED_GROWTH

        peak = Peak(process)
        found, size = hashlib.sha256(), 0
        with client.stream("GET", f"/artefacts/{model.sha256}/") as response:
            for chunk in response.iter_bytes(MEGABYTE):
                found.update(chunk)
                size += len(chunk)
                if size < 4 * MEGABYTE:
                    time.sleep(0.1)  # a slow reader does not make the server read ahead
        assert (found.hexdigest(), size) == (model.sha256, model.size_bytes)
        assert peak.growth < ALLOWED_GROWTH
    assert Artefact.objects.filter(pk=digest, kind="update").exists()
    assert list(incoming_dir().iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


def test_a_device_that_breaks_off_leaves_nothing(
    assignment: tuple[Enrolled, Assignment], web: tuple[str, psutil.Process], tmp_path: Path
) -> None:
    pi, part = assignment
    url, _ = web

    def broken() -> Iterator[bytes]:
        for _ in range(10):
            yield bytes(MEGABYTE)
        raise KeyboardInterrupt

    headers = {
        "Authorization": f"Device {pi.api_token}",
        "X-Content-SHA256": "0" * 64,
        "Content-Length": str(TENSOR_BYTES),
    }
    with pytest.raises(KeyboardInterrupt), httpx.Client(timeout=30) as client:
        target = f"{url}/api/v1/device/assignments/{part.pk}/update/"
        client.put(target, content=broken(), headers=headers)
    time.sleep(0.5)
    assert list(incoming_dir().iterdir()) == []
    part.refresh_from_db()
    assert (part.phase, part.update_artefact_id) == ("accepted", None)
    again = httpx.get(f"{url}/api/v1/device/hello/", timeout=10)
    assert again.status_code == 401, "the server goes on"
