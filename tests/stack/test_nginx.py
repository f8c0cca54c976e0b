"""deploy/nginx.conf before a real web server: TLS, files that nginx sends, updates that pass."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fedcore.errors import ServerUnavailable
from fedcore.formats.line_bodies import DownBody, DownKind, Envelope, Hello, HelloAnswer, UpKind
from fedcore.formats.line_messages import Message, body_of
from tests import packages
from tests.compose import ROOT
from tests.conftest import free_port
from tests.stack.transfers import MEGABYTE, Case, Web, prepare, web, web_process
from webapp.jobs.models import Assignment
from workers.agent.agent_errors import Revoked
from workers.agent.http.server_api import Address, ServerApi, tls_context
from workers.agent.line.device_line import Line
from workers.agent.line.opening import line_site, open_line

pytestmark = [pytest.mark.stack, pytest.mark.django_db(transaction=True)]
__all__ = ["prepare", "web", "web_process"]
SIZE = 64 * MEGABYTE
RECORD_BYTES = 2**14  # what one TLS record carries at most
RECORD_OVERHEAD_BYTES = 29  # its head and tag: TLS 1.2 with AES-GCM; TLS 1.3 has 22
HEADS_BYTES = 4096  # handshake, certificates, HTTP


def by_tls(count: int) -> int:
    """How many bytes a transfer of so many may move in all."""
    return count + -(-count // RECORD_BYTES) * RECORD_OVERHEAD_BYTES + HEADS_BYTES


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    script = ["sh", str(ROOT / "deploy" / "make-certs.sh"), "localhost"]
    subprocess.run(script, env={**os.environ, "CERTS": str(folder)}, check=True)
    return folder / "ca.crt"


@pytest.fixture(scope="module")
def proxy(web_process: Web, authority: Path) -> Iterator[str]:
    """nginx with the file that is shipped, its paths and ports those of these tests."""
    nginx = packages.find("nginx")
    if nginx is None:
        pytest.skip("nginx is not installed")
    port, folder = free_port(), web_process.folder
    conf = (ROOT / "deploy" / "nginx.conf").read_text()
    for shipped, here in {
        "/tmp/": f"{folder}/nginx-",
        "/certs/": f"{authority.parent}/",
        "web:8000": f"127.0.0.1:{web_process.port}",
        "listen 443": f"listen {port}",
        "/var/lib/edgewise/": f"{folder}/",
        "127.0.0.1:2080": f"127.0.0.1:{free_port()}",
    }.items():
        assert shipped in conf
        conf = conf.replace(shipped, here)
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(f"{user}daemon off;\nerror_log {folder}/nginx.log;\n{conf}")
    web_process.kill()
    web_process.env |= {
        "EDGEWISE_X_ACCEL_PREFIX": "/_artefacts/",
        "EDGEWISE_URL": "https://localhost",
        "EDGEWISE_HOSTS": "localhost,127.0.0.1",
    }
    web_process.start()
    process = subprocess.Popen([nginx, "-c", str(path), "-e", f"{folder}/nginx.log"])
    wait_for_port(port, folder / "nginx.log")
    yield f"https://localhost:{port}"
    process.terminate()
    process.wait()


def wait_for_port(port: int, log: Path) -> None:
    until = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


def test_transfers_pass_the_proxy(
    proxy: str, web: Web, prepare: Callable[[int], Case], authority: Path
) -> None:
    case = prepare(SIZE)
    case = replace(case, server=ServerApi(Address(proxy, case.pi.api_token, authority)))
    path = case.fetch()
    assert path.stat().st_size == case.model.size_bytes
    traffic = case.server.traffic
    assert traffic.down < by_tls(case.model.size_bytes)
    case.upload()
    assert traffic.up < by_tls(case.size)
    case.assert_stored()


def test_nginx_alone_reaches_the_files(
    proxy: str, web: Web, prepare: Callable[[int], Case], authority: Path, settings: Any
) -> None:
    case = prepare(SIZE)
    model = case.model
    url = f"/api/v1/device/artefacts/{model.sha256}/"
    headers = {"Authorization": f"Device {case.pi.api_token}"}
    with httpx.Client(base_url=proxy, verify=tls_context(authority), headers=headers) as client:
        head = client.get(url, headers={"Range": "bytes=8-15"})
        assert (head.status_code, len(head.content)) == (206, 8)
        assert head.headers["content-range"] == f"bytes 8-15/{model.size_bytes}"
        assert "x-accel-redirect" not in head.headers
        beyond = client.get(url, headers={"Range": f"bytes={model.size_bytes}-"})
        assert beyond.status_code == 416
        direct = client.get(f"/_artefacts/{model.sha256[:2]}/{model.sha256}")
        assert direct.status_code == 404
        assert client.get(url, headers={"Authorization": "Device x"}).status_code == 401
    bare = {**headers, "X-Forwarded-Proto": "https"}
    answer = httpx.get(f"{web.url}{url}", headers=bare)
    assert (answer.content, answer.headers["x-accel-redirect"]) == (
        b"",
        f"/_artefacts/{model.sha256[:2]}/{model.sha256}",
    )


def test_upload_resumes_after_the_web_process_died(
    proxy: str, web: Web, prepare: Callable[[int], Case], authority: Path
) -> None:
    case = prepare(SIZE)
    case = replace(case, server=ServerApi(Address(proxy, case.pi.api_token, authority)))

    def kill() -> None:
        if case.received_bytes > SIZE // 4:
            web.kill()

    with pytest.raises(ServerUnavailable):
        case.upload(check=kill)
    received = case.received_bytes
    assert received > SIZE // 4
    web.start()
    before = case.server.traffic.up
    case.upload(resume=True)
    assert case.server.traffic.up - before < by_tls(case.size - received)
    case.assert_stored()


class AcceptsAll:
    """Handlers of a line; the offers that came, and the answers to their acceptance."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[tuple[str, Message]] = asyncio.Queue()
        self.line: Line | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def greeted(self, answer: HelloAnswer) -> None:
        assert answer.name == "pi-kitchen"

    def received(self, kind: DownKind, body: DownBody) -> None:
        assert kind is DownKind.OFFER and isinstance(body, Envelope)
        call = asyncio.create_task(self._accept(json.loads(body.body)["assignment"]))
        self._calls.add(call)

    async def _accept(self, assignment: str) -> None:
        assert self.line is not None
        answer = await self.line.call(UpKind.ACCEPT, {"assignment": assignment})
        self.accepted.put_nowait((assignment, answer))

    def connection_changed(self, line: Line) -> None: ...


async def _first_work(url: str, token: str, authority: Path) -> tuple[str, Message]:
    """The first offer that comes over a new line, and the answer to its acceptance."""
    handlers = AcceptsAll()
    line = Line(line_site(url, token, authority), body_of(Hello("boot-1")), handlers)
    handlers.line = line
    running = asyncio.create_task(line.run())
    try:
        return await asyncio.wait_for(handlers.accepted.get(), 60)
    finally:
        await line.stop()
        running.cancel()


def test_line_passes_the_proxy_both_ways(
    proxy: str, web: Web, prepare: Callable[[int], Case], authority: Path
) -> None:
    case = prepare(MEGABYTE)
    Assignment.objects.filter(pk=case.part.pk).update(phase="offered")
    assignment, answer = asyncio.run(_first_work(proxy, case.pi.api_token, authority))
    assert (assignment, answer.status) == (str(case.part.pk), 200)
    assert json.loads(bytes(answer.body))["global"]["sha256"] == case.model.sha256
    case.part.refresh_from_db()
    assert case.part.phase == "accepted"


def test_refused_line_tells_its_reason_through_the_proxy(
    proxy: str, web: Web, authority: Path
) -> None:
    with pytest.raises(Revoked, match="enrol the device again"):
        asyncio.run(_open(proxy, authority))


async def _open(url: str, authority: Path) -> None:
    await open_line(line_site(url, "unknown", authority))
