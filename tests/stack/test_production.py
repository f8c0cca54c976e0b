"""The commands of docker-compose.yml, word by word, on a real PostgreSQL and real Redis servers.

The address is https as behind a proxy: requests carry what the proxy would add.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests import compose
from tests.stack import services
from workers.stack.processes import Processes, free_port

logging.getLogger("httpx").setLevel("WARNING")  # thousands of polls
pytestmark = [pytest.mark.stack, pytest.mark.slow]

HOST = "edgewise.test"
PARTS = ("web", "coordinator", "beat", "aggregate")
PROXY = {"Host": HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}


@dataclass
class Production:
    """The site as docker-compose.yml starts it."""

    processes: Processes
    services: dict[str, dict[str, Any]]
    env: dict[str, str]
    port: int
    folder: Path

    def words(self, line: list[str]) -> list[str]:
        """What a container runs, with this machine's paths and port."""
        here = {
            "python": sys.executable,
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=8000": f"--port={self.port}",
            "--schedule=/tmp/beat/schedule": f"--schedule={self.folder / 'beat' / 'schedule'}",
            "/tmp/beat": str(self.folder / "beat"),
        }
        return [here.get(word, word) for word in line]

    def start(self, part: str) -> None:
        words = self.words(compose.command_line(self.services[part]))
        words[0] = shutil.which(words[0], path=self.env["PATH"]) or words[0]
        self.processes.start(part, words, self.env)

    def manage(self, *words: str, **more: str) -> str:
        command = [sys.executable, "manage.py", *words]
        return self._run(command, {**self.env, **more}).stdout

    def health(self, part: str, *more: str) -> None:
        """Run a service's own health check; raises where it fails."""
        kind, *line = self.services[part]["healthcheck"]["test"]
        command = ["sh", "-c", *line] if kind == "CMD-SHELL" else self.words(line)
        self._run([*command, *more], {**self.env, "HOSTNAME": socket.gethostname()})

    def _run(self, command: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            env=dict(env),
            cwd=compose.ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        return done

    def browser(self, **headers: str) -> httpx.Client:
        url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, headers={**PROXY, **headers}, timeout=30)


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    folder = tmp_path_factory.mktemp("production")
    processes = Processes(folder / "log")
    with ExitStack() as stack:
        stack.callback(processes.stop_all)
        database = services.named("TEST_DATABASE_URL")
        broker = services.named("TEST_REDIS_URL")
        servers = {
            "DATABASE_URL": stack.enter_context(services.fresh_database(database)),
            "REDIS_URL": stack.enter_context(services.empty_redis(broker)),
            **stack.enter_context(services.broker_with_tls(processes, folder)),
        }
        site = Production(
            processes,
            compose.services({**compose.example_env(), "EDGEWISE_URL": f"https://{HOST}"}),
            {},
            free_port(),
            folder,
        )
        site.env = _environment(site.services["web"]["environment"], servers, folder)
        site.manage("collectstatic", "--noinput", "--verbosity", "0")  # the image did this
        migrate = site.words(compose.command_line(site.services["migrate"]))
        site.manage(*migrate[2:])
        stack.callback(processes.stop_all)  # before its databases go
        for part in PARTS:
            site.start(part)
        _until(lambda: _answers(site), 90, lambda: site.processes.log_tail("web"))
        yield site


def _environment(
    service_env: Mapping[str, str], servers: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """The variables of the service and of the image, with the test's servers and folders."""
    assert servers.keys() <= service_env.keys()
    inherited = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
    (folder / "beat").mkdir()
    return {
        **inherited,
        **service_env,
        **servers,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "EDGEWISE_SECRET_KEY": secrets.token_hex(32),
        "DJANGO_SETTINGS_MODULE": "webapp.settings",
        "EDGEWISE_VAR_DIR": str(folder / "var"),
        "EDGEWISE_STATIC_ROOT": str(folder / "static"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _answers(site: Production) -> bool:
    for part in PARTS:
        site.processes.check(part)
    try:
        return site.browser().get("/login/").status_code == 200
    except httpx.TransportError:
        return False


def _until(done: Callable[[], bool], limit_s: float, why: Callable[[], object]) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {limit_s:.0f} s: {why()}")
        time.sleep(0.3)


@pytest.fixture(scope="module")
def api(production: Production) -> httpx.Client:
    production.manage("ensure_admin", EDGEWISE_ADMIN_PASSWORD="long-enough-for-a-test")
    token = production.manage("create_token", "admin").strip()
    return production.browser(Authorization=f"Token {token}")


def test_deploy_check_finds_nothing(production: Production) -> None:
    production.manage("check", "--deploy", "--fail-level", "WARNING")


def test_plain_http_redirects_to_https(production: Production) -> None:
    answer = production.browser(**{"X-Forwarded-Proto": "http"}).get("/login/")
    assert answer.status_code == 301
    assert answer.headers["location"] == f"https://{HOST}/login/"


def test_unknown_host_is_refused(production: Production) -> None:
    assert production.browser(Host="elsewhere.test").get("/login/").status_code == 400


def test_pages_carry_security_headers(production: Production) -> None:
    answer = production.browser().get("/login/")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "max-age=31536000" in answer.headers["strict-transport-security"]
    assert "Secure" in answer.headers["set-cookie"]
    style = re.search(r'href="(/static/[^"]+\.css)"', answer.text)
    assert style is not None
    assert production.browser().get(style[1]).status_code == 200


def test_every_health_check_passes(production: Production) -> None:
    production.health("web", str(production.port))
    production.health("coordinator")
    production.health("aggregate")
    _until(lambda: any((production.folder / "beat").iterdir()), 30, lambda: "beat wrote nothing")
    production.health("beat")


def test_job_waits_and_reaches_a_device_over_tls(production: Production, api: httpx.Client) -> None:
    created = api.post("/api/v1/jobs/", json={"name": "production", "model": {"name": "nano"}})
    assert created.status_code == 201, created.text
    job = f"/api/v1/jobs/{created.json()['id']}/"

    def reason() -> str:
        return str(api.get(job).json()["reason"])

    _until(lambda: "enrolled" in reason(), 120, lambda: _state(production, api, job))
    assert reason() == "waiting for 1 device with at least 8 examples; 0 enrolled"

    device, broker = _enrol(production, api)
    _until(lambda: _present(device) and _queued(broker) > 0, 60, lambda: api.get(job).text)
    head = api.get(job).json()
    assert head["phase"] == "running"
    _a_stranger_finds_the_broker_shut(broker)

    assert api.post(f"{job}cancel/").status_code == 200
    _until(lambda: api.get(job).json()["phase"] == "cancelled", 30, lambda: api.get(job).text)


def test_browser_follows_a_job_over_a_websocket(production: Production, api: httpx.Client) -> None:
    created = api.post("/api/v1/jobs/?launch=false", json={"name": "watched"}).json()
    path = f"/ws/jobs/{created['id']}/"
    cookie = _log_in(production)
    with _socket(production, path, cookie, f"https://{HOST}") as live:
        live.send(json.dumps({"cursors": {"events": 0, "samples": {}}}))
        assert json.loads(live.recv(timeout=20))["type"] == "update"
    with pytest.raises(InvalidStatus):
        _socket(production, path, cookie, "https://elsewhere.test")


def _state(production: Production, api: httpx.Client, job: str) -> str:
    logs = "\n".join(production.processes.log_tail(part) for part in PARTS)
    return f"{api.get(job).text}\n{logs}"


def _enrol(production: Production, api: httpx.Client) -> tuple[httpx.Client, redis.Redis]:
    """A device by the calls an agent makes: its site and its broker."""
    token = api.post("/api/v1/enrolments/", json={"name": "pi-kitchen"}).json()["token"]
    body = {
        "token": token,
        "name": "pi-kitchen",
        "agent_version": "0.1.0",
        "profile": {},
        "datasets": [{"name": "law", "domain": "law", "examples": 40, "columns": ["text"]}],
    }
    answer = production.browser().post("/api/v1/enrol/", json=body)
    assert answer.status_code == 201, answer.text
    answered = answer.json()
    assert answered["broker"]["url"].startswith("rediss://edgewise-device-")
    authority = production.env["DEVICE_REDIS_CA_FILE"]
    broker = redis.Redis.from_url(answered["broker"]["url"], ssl_ca_certs=authority)
    device = production.browser(Authorization=f"Device {answered['api_token']}")
    hello = {"boot_id": "boot-1", "agent_version": "0.1.0"}
    hello |= {"profile": {}, "datasets": body["datasets"]}
    assert device.post("/api/v1/device/hello/", json=hello).status_code == 200
    return device, broker


def _present(device: httpx.Client) -> bool:
    body = {"boot_id": "boot-1", "sent_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    body |= {"activity": {"assignment": None, "phase": "idle"}, "samples": []}
    answer = device.post("/api/v1/device/measurements/", json=body)
    assert answer.status_code == 200, answer.text
    return True


def _queued(broker: redis.Redis) -> int:
    """Offers that wait for the device, read with the device's own rights."""
    prefix = str(broker.connection_pool.connection_kwargs["username"]).rpartition("-")[2]
    return int(broker.llen(f"dev.{prefix}.work"))  # type: ignore[arg-type]


def _a_stranger_finds_the_broker_shut(broker: redis.Redis) -> None:
    connection = broker.connection_pool.connection_kwargs
    host, port = connection["host"], connection["port"]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(host, port, ssl=True, ssl_ca_certs=connection["ssl_ca_certs"]).ping()
    with pytest.raises(redis.ConnectionError):  # its certificate is no public one
        redis.Redis(host, port, ssl=True).ping()
    with pytest.raises(redis.ConnectionError):  # and there is no way in without TLS
        redis.Redis(host, port).ping()
    with pytest.raises(redis.exceptions.NoPermissionError):
        broker.get("dev.999.anything")


def _log_in(production: Production) -> str:
    """The cookies of a browser; httpx keeps secure ones to itself on plain http."""
    with production.browser(Referer=f"https://{HOST}/login/") as browser:
        page = browser.get("/login/")
        cookie = page.headers["set-cookie"].partition(";")[0]
        field = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert field is not None
        form = {
            "username": "admin",
            "password": "long-enough-for-a-test",
            "csrfmiddlewaretoken": field[1],
        }
        answer = browser.post("/login/", data=form, headers={"Cookie": cookie})
        assert answer.status_code == 302, answer.text
        cookies = [item.partition(";")[0] for item in answer.headers.get_list("set-cookie")]
        return "; ".join(cookies)


def _socket(production: Production, path: str, cookie: str, origin: str) -> Any:
    wire = socket.create_connection(("127.0.0.1", production.port))
    headers = {"Cookie": cookie, "X-Forwarded-Proto": "https"}
    address = f"ws://{HOST}{path}"
    return connect(address, sock=wire, origin=origin, additional_headers=headers)  # type: ignore[arg-type]
