"""deploy/nginx.conf before a real web server: TLS, files that nginx sends, updates that pass."""

from __future__ import annotations

import getpass
import os
import shutil
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
from tests.compose import ROOT
from tests.conftest import free_port
from tests.stack.transfers import MEGABYTE, Case, Web, prepare, web
from workers.agent.http.server_api import Address, ServerApi, tls_context

pytestmark = [pytest.mark.stack, pytest.mark.django_db(transaction=True)]
__all__ = ["prepare", "web"]
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
SIZE = 64 * MEGABYTE
RECORD_BYTES = 2**14  # what one TLS record carries at most
RECORD_OVERHEAD_BYTES = 29  # its head and tag: TLS 1.2 with AES-GCM; TLS 1.3 has 22
HEADS_BYTES = 4096  # handshake, certificates, HTTP


def by_tls(count: int) -> int:
    """How many bytes a transfer of so many may move in all."""
    return count + -(-count // RECORD_BYTES) * RECORD_OVERHEAD_BYTES + HEADS_BYTES


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    script = ["sh", str(ROOT / "deploy" / "make-certs.sh"), "localhost"]
    subprocess.run(script, env={**os.environ, "CERTS": str(folder)}, check=True)
    shutil.copy(folder / "broker.crt", folder / "fullchain.pem")
    shutil.copy(folder / "broker.key", folder / "privkey.pem")
    return folder / "ca.crt"


@pytest.fixture
def proxy(web: Web, authority: Path, tmp_path: Path) -> Iterator[str]:
    """nginx with the file that is shipped, its paths and ports those of this test."""
    if NGINX is None:
        pytest.skip("needs nginx")
    port = free_port()
    conf = (ROOT / "deploy" / "nginx.conf").read_text()
    for told, here in {
        "/certs/": f"{authority.parent}/",
        "web:8000": f"127.0.0.1:{web.port}",
        "listen 443": f"listen {port}",
        "/var/lib/edgewise/": f"{tmp_path}/",
        "/tmp/nginx.pid": f"{tmp_path}/nginx.pid",
    }.items():
        assert told in conf
        conf = conf.replace(told, here)
    places = "".join(
        f"    {name}_temp_path {tmp_path}/nginx-{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = conf.replace("http {\n", f"http {{\n{places}")
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    path = tmp_path / "nginx.conf"
    path.write_text(f"{user}daemon off;\nerror_log {tmp_path}/nginx.log;\n{conf}")
    web.kill()
    web.env |= {"EDGEWISE_X_ACCEL_PREFIX": "/_artefacts/", "EDGEWISE_URL": "https://localhost"}
    web.env |= {"EDGEWISE_HOSTS": "localhost,127.0.0.1"}
    web.start()
    process = subprocess.Popen([NGINX, "-c", str(path), "-e", f"{tmp_path}/nginx.log"])
    wait_for_port(port, tmp_path / "nginx.log")
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


def test_transfers_pass(
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


def test_nginx_sends_the_file_and_nobody_reaches_it_otherwise(
    proxy: str, web: Web, prepare: Callable[[int], Case], authority: Path, settings: Any
) -> None:
    case = prepare(SIZE)
    model = case.model
    url = f"/api/v1/device/artefacts/{model.sha256}/"
    told = {"Authorization": f"Device {case.pi.api_token}"}
    with httpx.Client(base_url=proxy, verify=tls_context(authority), headers=told) as client:
        head = client.get(url, headers={"Range": "bytes=8-15"})
        assert (head.status_code, len(head.content)) == (206, 8)
        assert head.headers["content-range"] == f"bytes 8-15/{model.size_bytes}"
        assert "x-accel-redirect" not in head.headers
        beyond = client.get(url, headers={"Range": f"bytes={model.size_bytes}-"})
        assert beyond.status_code == 416
        direct = client.get(f"/_artefacts/{model.sha256[:2]}/{model.sha256}")
        assert direct.status_code == 404
        assert client.get(url, headers={"Authorization": "Device x"}).status_code == 401
    bare = {**told, "X-Forwarded-Proto": "https"}
    answer = httpx.get(f"{web.url}{url}", headers=bare)
    assert (answer.content, answer.headers["x-accel-redirect"]) == (
        b"",
        f"/_artefacts/{model.sha256[:2]}/{model.sha256}",
    )


def test_an_upload_goes_on_after_the_web_process_was_killed(
    proxy: str, web: Web, prepare: Callable[[int], Case], authority: Path
) -> None:
    case = prepare(SIZE)
    case = replace(case, server=ServerApi(Address(proxy, case.pi.api_token, authority)))

    def kill() -> None:
        if case.kept > SIZE // 4:
            web.kill()

    with pytest.raises(ServerUnavailable):
        case.upload(check=kill)
    kept = case.kept
    assert kept > SIZE // 4
    web.start()
    before = case.server.traffic.up
    case.upload(resume=True)
    assert case.server.traffic.up - before < by_tls(case.size - kept)
    case.assert_stored()
