"""Why a line does not open: proxies, captive portals, certificates, and the site itself."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.conftest import ROOT
from tests.agent.lines import HELLO, Recorder, until
from tests.agent.stand_in import API_TOKEN, StandIn
from tests.agent.test_private_transfer import Proxy
from workers.agent.agent_errors import Revoked
from workers.agent.line.device_line import Line, LineOptions
from workers.agent.line.opening import line_site

PROBLEM = {"Content-Type": "application/problem+json"}


@pytest.mark.parametrize(
    ("refusal", "problem"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"), "answers 200"),
        ((401, {"Content-Type": "text/html"}, b"<html>Who?</html>"), "answers 401"),
        ((401, {"Content-Type": "application/json"}, b'{"detail": "log in"}'), "answers 401"),
        ((403, {}, b""), "answers 403"),
        (
            (302, {"Location": "https://portal.example/"}, b""),
            "answers 302 to the line; it redirects",
        ),
        ((502, {}, b"<html>Bad gateway</html>"), "answers 502"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
async def test_refusal_by_a_stranger_is_tried_again(
    open_to: Callable[..., Line],
    recorder: Recorder,
    server: StandIn,
    refusal: tuple[int, dict[str, str], bytes],
    problem: str,
) -> None:
    server.refusals = [refusal]
    line = open_to(server.url)
    await until(lambda: line.is_connected)
    assert any(problem in text for text in recorder.problems)
    assert all("between this device and the site" in text for text in recorder.problems)
    assert line.problem == ""


def problem_document(status: int, detail: str) -> tuple[int, dict[str, str], bytes]:
    return status, PROBLEM, json.dumps({"status": status, "detail": detail}).encode()


async def test_refusals_of_the_site_itself(open_to: Callable[..., Line], server: StandIn) -> None:
    status, headers, body = problem_document(503, "the site is starting")
    server.refusals = [(status, {**headers, "Retry-After": "2"}, body)]
    line = open_to(server.url)
    began = time.monotonic()
    await until(lambda: line.problem == "the site is starting")
    await until(lambda: line.is_connected)
    assert time.monotonic() - began >= 2


async def test_revoked_by_the_site(recorder: Recorder, server: StandIn) -> None:
    """It is asked for the second time after a while."""
    server.refusals = [problem_document(401, "this device was revoked")] * 2
    line = Line(line_site(server.url, API_TOKEN), HELLO, recorder, LineOptions(confirm_s=0.5))
    with pytest.raises(Revoked, match="was revoked"):
        await asyncio.wait_for(line.run(), 10)
    assert server.upgrades[1] - server.upgrades[0] >= 0.5


async def test_outdated_agent_waits_for_its_update(
    open_to: Callable[..., Line], server: StandIn
) -> None:
    server.refusals = [problem_document(426, "update this agent to 2.0")]
    line = open_to(server.url)
    await until(lambda: line.problem == "update this agent to 2.0")
    await asyncio.sleep(1.5)
    assert len(server.upgrades) == 1


async def test_no_server_is_tried_again_with_backoff(
    open_to: Callable[..., Line], server: StandIn
) -> None:
    server.stop()
    line = open_to(server.url)
    await until(lambda: "no answer from the server" in line.problem)
    server.come_back()
    await until(lambda: line.is_connected)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    command = ["sh", str(ROOT / "deploy" / "make-certs.sh"), "localhost"]
    subprocess.run(command, env={"CERTS": str(folder), "PATH": "/usr/bin:/bin"}, check=True)
    return folder


async def test_tls_through_a_proxy(
    open_to: Callable[..., Line], authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "fullchain.pem", authority / "privkey.pem")
    server = StandIn(context)
    server.start()
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    unknown = open_to(server.url)
    await until(lambda: "EDGEWISE_CA_FILE" in unknown.problem)
    proxy = Proxy()
    monkeypatch.setenv("https_proxy", proxy.url)
    line = open_to(server.url, ca_file=authority / "ca.crt")
    await until(lambda: line.is_connected)
    assert proxy.head.startswith(b"CONNECT localhost")
    server.stop()
