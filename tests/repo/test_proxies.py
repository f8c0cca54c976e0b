"""deploy/Caddyfile and deploy/nginx.conf as real proxies: TLS, lines, long polls, updates."""

from __future__ import annotations

import getpass
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from fedcore.formats.line_messages import PATH, PING_S, POLL_PATH, POLL_S, PONG_S, subprotocols
from tests import packages
from tests.compose import ROOT
from tests.conftest import free_port
from tests.repo import upstream
from workers.stack.processes import Processes, wait_for_port

DEPLOY = ROOT / "deploy"
UPDATE_PATH = "/api/v1/device/assignments/1/update/"
MEGABYTE = 2**20


@dataclass(frozen=True)
class Proxy:
    """A running proxy at ``https://localhost:port`` before ``tests.repo.upstream``."""

    port: int
    health_port: int
    authority: Path
    processes: Processes

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def client(self, **headers: str) -> httpx.Client:
        url = f"https://localhost:{self.port}"
        return httpx.Client(base_url=url, verify=self.tls, headers=headers, trust_env=False)


def _program(name: str) -> str:
    program = packages.find(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


def _replaced(name: str, changes: dict[str, str]) -> str:
    """A file of ``deploy`` with this test's paths and ports."""
    text = (DEPLOY / name).read_text()
    for shipped, here in changes.items():
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    return text


def _caddy(folder: Path, ports: dict[str, int]) -> tuple[list[str], dict[str, str]]:
    changes = {
        "https://{$SITE_HOST}": f"https://localhost:{ports['tls']}",
        "127.0.0.1:2080": f"127.0.0.1:{ports['health']}",
        "/certs/": f"{folder}/",
        "name web": "name 127.0.0.1",
        "port 8000": f"port {ports['web']}",
    }
    path = folder / "Caddyfile"
    path.write_text(_replaced("Caddyfile", changes))
    command = [_program("caddy"), "run", "--adapter", "caddyfile", "--config", str(path)]
    places = {"XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
    return command, {"SITE_TLS": "files", **places}


def _nginx(folder: Path, ports: dict[str, int]) -> tuple[list[str], dict[str, str]]:
    changes = {
        "/tmp/": f"{folder}/nginx-",
        "web:8000": f"127.0.0.1:{ports['web']}",
        "listen 443": f"listen {ports['tls']}",
        "127.0.0.1:2080": f"127.0.0.1:{ports['health']}",
        "/certs/": f"{folder}/",
        "worker_connections 32768": "worker_connections 512",
    }
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(f"{user}daemon off;\n{_replaced('nginx.conf', changes)}")
    return [_program("nginx"), "-c", str(path), "-e", "stderr"], {}


@pytest.fixture(scope="module", params=[_caddy, _nginx], ids=["caddy", "nginx"])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    ports = {name: free_port() for name in ("web", "tls", "health")}
    command, env = request.param(folder, ports)
    _certificates(folder)
    processes = Processes(folder / "log")
    web = [sys.executable, "-m", "uvicorn", "tests.repo.upstream:app", "--lifespan", "off"]
    try:
        processes.start("web", [*web, "--port", str(ports["web"])], {**os.environ})
        wait_for_port(processes, "web", ports["web"], 20)
        processes.start("proxy", command, {**os.environ, **env})
        wait_for_port(processes, "proxy", ports["tls"], 20)
        yield Proxy(ports["tls"], ports["health"], folder / "ca.crt", processes)
    finally:
        processes.stop_all()


def _certificates(folder: Path) -> None:
    command = ["sh", str(DEPLOY / "make-certs.sh"), "localhost"]
    subprocess.run(command, env={**os.environ, "CERTS": str(folder)}, check=True)


def test_line_passes_both_ways(proxy: Proxy) -> None:
    headers = {"Authorization": "Device token"}
    address = f"wss://localhost:{proxy.port}{PATH}"
    with connect(
        address, ssl=proxy.tls, subprotocols=subprotocols(), additional_headers=headers, proxy=None
    ) as line:
        received = json.loads(line.recv(timeout=10))
        assert line.subprotocol == subprotocols()[0]
        assert received["authorization"] == "Device token"
        line.send("x" * 60_000)
        assert line.recv(timeout=10) == "x" * 60_000


def test_claimed_addresses_are_not_passed(proxy: Proxy) -> None:
    claims = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
    with proxy.client(**claims) as client:
        received = client.get("/api/v1/").json()
    assert received["x-forwarded-for"] == "127.0.0.1"
    assert received["x-forwarded-proto"] == "https"
    assert received["host"] == f"localhost:{proxy.port}"


def test_long_poll_is_not_buffered(proxy: Proxy) -> None:
    with proxy.client() as client, client.stream("POST", POLL_PATH, json={}) as answer:
        parts = answer.iter_raw()
        began = time.monotonic()
        assert next(parts) == upstream.FIRST
        assert next(parts) == upstream.SECOND
        assert time.monotonic() - began > upstream.PAUSE_S / 2


def test_update_is_streamed_at_any_size(proxy: Proxy) -> None:
    """The answer comes while the proxy has had one piece of 12 MB only."""

    def pieces() -> Iterator[bytes]:
        yield bytes(MEGABYTE)
        time.sleep(upstream.PAUSE_S)
        for _ in range(11):
            yield bytes(MEGABYTE)

    with proxy.client() as client:
        answer = client.put(UPDATE_PATH, content=pieces())
    assert answer.status_code == 200
    assert 0 < int(answer.content) <= MEGABYTE


def test_other_bodies_are_limited(proxy: Proxy) -> None:
    with proxy.client() as client:
        answer = client.post("/api/v1/jobs/", content=bytes(11 * 10**6))
    assert answer.status_code in (413, 502)  # 502: Caddy 2.6 of Debian 12


def test_health_check_passes_without_tls(proxy: Proxy) -> None:
    url = f"http://127.0.0.1:{proxy.health_port}"
    assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    assert httpx.get(f"{url}/api/v1/", trust_env=False).status_code == 404


def test_nginx_waits_longer_than_site() -> None:
    """For an answer to a long poll, and from one ping to the next."""
    text = (DEPLOY / "nginx.conf").read_text()
    poll = re.search(rf"location = {POLL_PATH} {{(.*?)}}", text, re.DOTALL)
    lines = re.search(r"location /ws/ {(.*?)}", text, re.DOTALL)
    assert poll is not None and lines is not None
    assert PATH.startswith("/ws/")
    assert _seconds("proxy_read_timeout", poll[1]) > POLL_S + 5
    assert "proxy_buffering off;" in poll[1]
    assert _seconds("proxy_read_timeout", lines[1]) > PING_S + PONG_S


def _seconds(name: str, text: str) -> int:
    match = re.search(rf"{name} (\d+)s;", text)
    assert match is not None, name
    return int(match[1])


@pytest.mark.parametrize("name", ["Caddyfile", "redirect.Caddyfile"])
@pytest.mark.parametrize("tls", ["acme", "files"])
def test_caddy_accepts_its_files(name: str, tls: str, tmp_path: Path) -> None:
    env = {**os.environ, "SITE_HOST": "edgewise.example", "SITE_TLS": tls}
    command = [_program("caddy"), "adapt", "--adapter", "caddyfile", "--config", str(DEPLOY / name)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr


def test_certificate_needs_port_443_alone() -> None:
    """By TLS-ALPN-01: the HTTP challenge is off, and no server listens on port 80."""
    env = {**os.environ, "SITE_HOST": "edgewise.example", "SITE_TLS": "acme"}
    path = str(DEPLOY / "Caddyfile")
    command = [_program("caddy"), "adapt", "--adapter", "caddyfile", "--config", path]
    done = subprocess.run(command, env=env, capture_output=True, check=True)
    apps = json.loads(done.stdout)["apps"]
    servers = apps["http"]["servers"].values()
    assert sorted(place for server in servers for place in server["listen"]) == [
        "127.0.0.1:2080",
        ":443",
    ]
    assert all(server["automatic_https"]["disable_redirects"] for server in servers)
    (issuer,) = apps["tls"]["automation"]["policies"][0]["issuers"]
    assert issuer["challenges"] == {"http": {"disabled": True}}
