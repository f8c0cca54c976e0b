"""The commands of docker-compose.yml, word by word, on a real PostgreSQL and Redis.

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fedcore.formats.line_messages import PATH, Message, body_of, decode, encode, subprotocols
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
        "EDGEWISE_TRUSTED_PROXIES": "127.0.0.1",
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


def test_job_waits_and_its_offer_reaches_a_device(
    production: Production, api: httpx.Client
) -> None:
    created = api.post("/api/v1/jobs/", json={"name": "production", "model": {"name": "nano"}})
    assert created.status_code == 201, created.text
    job = f"/api/v1/jobs/{created.json()['id']}/"

    def reason() -> str:
        return str(api.get(job).json()["reason"])

    _until(lambda: "enrolled" in reason(), 120, lambda: _state(production, api, job))
    assert reason() == "waiting for 1 device with at least 8 examples; 0 enrolled"

    with _line(production, _enrol(production, api)) as line:
        offer = json.loads(_frame(line, "offer")["body"])
        shown = api.get("/api/v1/assignments/", params={"job": created.json()["id"]}).json()
        assert [row["id"] for row in shown["results"]] == [offer["assignment"]]
        assert api.get(job).json()["phase"] == "running"
        assert api.post(f"{job}cancel/").status_code == 200
        cancelled = json.loads(_frame(line, "cancel")["body"])
        assert cancelled["assignment"] == offer["assignment"]
    _until(lambda: api.get(job).json()["phase"] == "cancelled", 30, lambda: api.get(job).text)


def test_stranger_is_refused_a_line(production: Production) -> None:
    with pytest.raises(InvalidStatus) as refused, _line(production, "unknown"):
        pass
    response = refused.value.response
    assert response.status_code == 401
    assert response.headers["Content-Type"].startswith("application/problem+json")


def test_browser_follows_a_job_over_a_websocket(production: Production, api: httpx.Client) -> None:
    created = api.post("/api/v1/jobs/?launch=false", json={"name": "watched"}).json()
    path = f"/ws/jobs/{created['id']}/"
    cookie = _log_in(production)
    headers = {"Cookie": cookie}
    with _socket(production, path, headers, origin=f"https://{HOST}") as live:
        live.send(json.dumps({"cursors": {"events": 0, "samples": {}}}))
        assert json.loads(live.recv(timeout=20))["type"] == "update"
    elsewhere = "https://elsewhere.test"
    with pytest.raises(InvalidStatus), _socket(production, path, headers, origin=elsewhere):
        pass


def _state(production: Production, api: httpx.Client, job: str) -> str:
    logs = "\n".join(production.processes.log_tail(part) for part in PARTS)
    return f"{api.get(job).text}\n{logs}"


DATASETS = [{"name": "law", "domain": "law", "examples": 40, "columns": ["text"]}]


def _enrol(production: Production, api: httpx.Client) -> str:
    """The credential of a new device, by the call that an agent makes."""
    token = api.post("/api/v1/enrolments/", json={"name": "pi-kitchen"}).json()["token"]
    body = {"token": token, "name": "pi-kitchen", "agent_version": "0.1.0"}
    body |= {"profile": {}, "datasets": DATASETS}
    answer = production.browser().post("/api/v1/enrol/", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json().keys() == {"device", "api_token", "signing_public_key"}
    return str(answer.json()["api_token"])


@contextmanager
def _line(production: Production, credential: str) -> Iterator[ClientConnection]:
    """The line of a device that has said hello. Raises InvalidStatus where it is refused."""
    headers = {"Authorization": f"Device {credential}"}
    hello = {"boot_id": "boot-1", "agent_version": "0.1.0", "datasets": DATASETS}
    with _socket(production, PATH, headers, subprotocols=subprotocols()) as line:
        line.send(encode(Message(n=1, kind="hello", body=body_of(hello))), text=True)
        answer = decode(line.recv(timeout=20))
        assert (answer.re, answer.status) == (1, 200), answer.body
        yield line


def _frame(line: ClientConnection, kind: str) -> Any:
    """The body of the next frame of a kind; all frames until then are acknowledged."""
    while True:
        message = decode(line.recv(timeout=60))
        if message.n is not None:
            line.send(encode(Message(ack=message.n)), text=True)
            if message.kind == kind:
                return json.loads(bytes(message.body))


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


def _socket(production: Production, path: str, headers: dict[str, str], **options: Any) -> connect:
    wire = socket.create_connection(("127.0.0.1", production.port))
    headers = {"X-Forwarded-Proto": "https", **headers}
    address = f"ws://{HOST}{path}"
    return connect(address, sock=wire, additional_headers=headers, **options)
