"""Wrong log-ins at a real uvicorn with Argon2, also behind the site's nginx: memory, addresses."""

from __future__ import annotations

import getpass
import os
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import packages
from tests.compose import ROOT
from workers.stack.processes import Processes, free_port, wait_for_port

pytestmark = [pytest.mark.stack, pytest.mark.slow]

PASSWORD = "a long password"
ATTEMPTS = 24
HASH_MB = 100 * 2**20 / 1e6  # of Argon2 with Django's parameters


@dataclass
class LogInSite:
    """One web process on SQLite. ``token`` and ``cookie`` let forms in."""

    processes: Processes
    env: dict[str, str]
    port: int
    url: str
    token: str = ""
    cookie: str = ""

    def start(self, **env: str) -> None:
        command = [sys.executable, "-m", "uvicorn", "webapp.asgi:application", "--lifespan=off"]
        command += ["--no-proxy-headers", f"--port={self.port}"]
        self.processes.start("web", command, {**self.env, **env})
        wait_for_port(self.processes, "web", self.port, 60)

    def open_form(self) -> None:
        page = httpx.get(f"{self.url}/login/", timeout=60, verify=False)
        field = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert field is not None
        self.token = field[1]
        self.cookie = page.headers["set-cookie"].partition(";")[0]

    def log_in(
        self, name: str, password: str, forwarded: str, source: str = "127.0.0.1"
    ) -> httpx.Response:
        """``source``: the address that this client calls from."""
        form = {"username": name, "password": password, "csrfmiddlewaretoken": self.token}
        headers = {"Cookie": self.cookie, "X-Forwarded-For": forwarded, "Origin": self.url}
        transport = httpx.HTTPTransport(verify=False, local_address=source)
        with httpx.Client(transport=transport, headers=headers, timeout=100) as client:
            return client.post(f"{self.url}/login/", data=form)

    def memory_mb(self, entry: str) -> float:
        """``VmRSS``: now; ``VmHWM``: the most since the start."""
        text = Path(f"/proc/{self.processes.running['web'].pid}/status").read_text()
        match = re.search(rf"{entry}:\s+(\d+) kB", text)
        assert match is not None
        return int(match[1]) * 1024 / 1e6


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogInSite]:
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "webapp.settings",
        "EDGEWISE_DEBUG": "true",
        "EDGEWISE_VAR_DIR": str(folder),
        "EDGEWISE_URL": f"http://127.0.0.1:{port}",
        "EDGEWISE_SECRET_KEY": secrets.token_hex(32),
        "EDGEWISE_ADMIN_PASSWORD": PASSWORD,
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    env.pop("DATABASE_URL", None)
    for words in (["migrate", "-v0"], ["ensure_admin"]):
        subprocess.run([sys.executable, "manage.py", *words], cwd=ROOT, env=env, check=True)
    site = LogInSite(Processes(folder / "log"), env, port, env["EDGEWISE_URL"])
    yield site
    site.processes.stop_all()


@pytest.fixture
def site(installed: LogInSite) -> Iterator[LogInSite]:
    yield installed
    installed.processes.stop_all()


def test_memory_stays_bounded_under_wrong_log_ins_from_many_addresses(site: LogInSite) -> None:
    """Without a limit, 24 hashes at once take 2 GB."""
    site.start(EDGEWISE_TRUSTED_PROXIES="127.0.0.1")
    site.open_form()
    site.log_in("warm-up", "wrong", "192.0.2.1")
    idle_mb = site.memory_mb("VmRSS")
    with ThreadPoolExecutor(ATTEMPTS) as pool:
        answers = list(
            pool.map(lambda n: site.log_in(f"u{n}", "wrong", f"198.51.100.{n}"), range(ATTEMPTS))
        )
    codes = Counter(answer.status_code for answer in answers)
    taken_mb = site.memory_mb("VmHWM") - idle_mb
    assert set(codes) == {200, 429} and codes[200] >= 4
    assert {a.headers.get("retry-after") for a in answers if a.status_code == 429} == {"5"}
    assert 0.9 * HASH_MB < taken_mb < 4.5 * HASH_MB, f"{taken_mb:.0f} MB above idle"
    longest_s = max(a.elapsed.total_seconds() for a in answers if a.status_code == 429)
    assert longest_s < 20
    assert site.log_in("admin", PASSWORD, "203.0.113.9").status_code == 302


def test_a_forged_header_does_not_move_the_limit_of_a_real_peer(site: LogInSite) -> None:
    site.start(EDGEWISE_THROTTLE_LOGIN="3/hour")
    site.open_form()
    answers = [site.log_in("nobody", "wrong", f"192.0.2.{n}") for n in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) > 1000
    assert "Too many passwords were tried from this address" in answers[-1].text


def test_behind_a_trusted_proxy_each_64_has_its_limit(site: LogInSite) -> None:
    site.start(EDGEWISE_THROTTLE_LOGIN="3/hour", EDGEWISE_TRUSTED_PROXIES="127.0.0.1,10.0.0.3")
    site.open_form()

    def attempt(forwarded: str) -> int:
        return site.log_in("nobody", "wrong", forwarded).status_code

    chain = "2001:db8:f::{0}, 2001:db8:1:2::{0}, 10.0.0.3"  # the first entry is forged
    assert [attempt(chain.format(n)) for n in range(1, 5)] == [200, 200, 200, 429]
    assert attempt("2001:db8:1:3::1, 10.0.0.3") == 200
    assert site.log_in("admin", PASSWORD, "203.0.113.9").status_code == 302


def start_nginx(site: LogInSite, folder: Path) -> str:
    """The configuration that is shipped, with this machine's paths and ports; returns the URL."""
    nginx = packages.find("nginx")
    if nginx is None:
        pytest.skip("nginx is not installed")
    port, conf = free_port(), (ROOT / "deploy" / "nginx.conf").read_text()
    key, certificate = folder / "privkey.pem", folder / "fullchain.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    for shipped, here in {
        "/tmp/": f"{folder}/",  # first: the others' folders may be there
        "/certs/": f"{folder}/",
        "web:8000": f"127.0.0.1:{site.port}",
        "listen 443": f"listen {port}",
    }.items():
        assert shipped in conf
        conf = conf.replace(shipped, here)
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(f"{user}daemon off;\nerror_log {folder}/nginx.log;\n{conf}")
    site.processes.start("nginx", [nginx, "-c", str(path), "-e", f"{folder}/nginx.log"], site.env)
    wait_for_port(site.processes, "nginx", port, 20)
    return f"https://localhost:{port}"


def test_the_sites_nginx_tells_clients_apart(
    site: LogInSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = start_nginx(site, tmp_path)
    monkeypatch.setattr(site, "url", url)
    env = {"EDGEWISE_TRUSTED_PROXIES": "127.0.0.1", "EDGEWISE_THROTTLE_LOGIN": "3/hour"}
    site.start(EDGEWISE_URL=url, **env)
    site.open_form()
    forged = [site.log_in("nobody", "wrong", f"192.0.2.{n}", "127.0.0.2") for n in range(4)]
    assert [answer.status_code for answer in forged] == [200, 200, 200, 429]
    assert site.log_in("nobody", "wrong", "127.0.0.2", "127.0.0.3").status_code == 200
    answer = site.log_in("admin", PASSWORD, "", "127.0.0.3")
    assert answer.status_code == 302 and "Secure" in answer.headers["set-cookie"]
