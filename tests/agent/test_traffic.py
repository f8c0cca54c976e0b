"""Byte counts compared with a relay's, retransfers, and round-trip times."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcore.errors import ServerUnavailable
from fedcore.hardware.links import Link
from tests.agent.conftest import ROOT
from tests.agent.transfers import CONTENT, SHA256, Site, fetch
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload
from workers.agent.http.byte_counts import Counted, Traffic
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.throttle import LinkThrottle


class Relay(threading.Thread):
    """Relays bytes between the agent and a site, and counts them; may stall once."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.stops_at = 0
        self.port = port
        self.up = self.down = 0
        self.start()

    def run(self) -> None:
        while True:
            client, _ = self.listener.accept()
            onward = socket.create_connection(("127.0.0.1", self.port))
            for name, ends in (("up", (client, onward)), ("down", (onward, client))):
                threading.Thread(target=self._pass, args=(name, *ends), daemon=True).start()

    def _pass(self, name: str, source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65_536):
            setattr(self, name, getattr(self, name) + len(data))
            target.sendall(data)
            if name == "up" and 0 < self.stops_at < self.up:
                self.stops_at = 0
                time.sleep(0.4)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    command = ["sh", str(ROOT / "deploy" / "make-certs.sh"), "localhost"]
    subprocess.run(command, env={"CERTS": str(folder), "PATH": "/usr/bin:/bin"}, check=True)
    return folder


@pytest.fixture(params=["plain", "tls"])
def either_site(request: pytest.FixtureRequest, certificates: Path) -> Iterator[Site]:
    context = None
    if request.param == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "fullchain.pem", certificates / "privkey.pem")
    stand_in_site = Site(context)
    yield stand_in_site
    stand_in_site.shutdown()
    stand_in_site.server_close()


def test_every_byte_on_the_wire_is_counted(
    either_site: Site, certificates: Path, cache: ArtefactCache, update: Path
) -> None:
    """HTTP heads, TLS handshakes and records: the relay and the agent count the same."""
    site, relay = either_site, Relay(either_site.server_address[1])
    url = f"{'https' if site.tls else 'http'}://localhost:{relay.listener.getsockname()[1]}"
    server = ServerApi(Address(url, "secret", certificates / "ca.crt"))
    server.assignment("a")
    fetch(server, cache)
    server.upload("a", update, SHA256)
    assert site.part == CONTENT
    server.unenrol()
    counted = server.traffic
    assert (counted.up, counted.down) == (relay.up, relay.down)
    over = counted.up - len(CONTENT)
    assert over > 3000 if site.tls else 0 < over < 2000
    server.close()


def test_slow_and_stalling_connection_counts_every_byte(
    either_site: Site, certificates: Path, cache: ArtefactCache, update: Path
) -> None:
    """With TLS, half-sent records wait in this process; none is lost, repeated or uncounted."""
    site, relay = either_site, Relay(either_site.server_address[1])
    relay.stops_at = 1_000_000
    url = f"{'https' if site.tls else 'http'}://localhost:{relay.listener.getsockname()[1]}"
    throttle = LinkThrottle(Link(12e6, 24e6, 0.01))
    server = ServerApi(Address(url, "secret", certificates / "ca.crt", throttle))
    began = time.monotonic()
    server.upload("a", update, SHA256)
    assert time.monotonic() - began >= server.traffic.up / 12e6
    assert site.part == CONTENT
    assert fetch(server, cache).read_bytes() == CONTENT
    assert (server.traffic.up, server.traffic.down) == (relay.up, relay.down)
    server.close()


@pytest.fixture
def server(site: Site) -> Iterator[ServerApi]:
    api = ServerApi(Address(site.url, "secret"))
    yield api
    api.close()


def test_bytes_sent_again_after_a_cut(site: Site, server: ServerApi, cache: ArtefactCache) -> None:
    site.cut_at = 1_000_000
    with pytest.raises(ServerUnavailable):
        fetch(server, cache)
    assert server.traffic.again == 0
    site.answers = [(200, {}, CONTENT)]  # knows no ranges
    fetch(server, cache)
    assert server.traffic.again == 1_000_000


def test_only_missing_bytes_are_fetched_after_a_cut(
    site: Site, server: ServerApi, cache: ArtefactCache
) -> None:
    site.cut_at = 1_000_000
    with pytest.raises(ServerUnavailable):
        fetch(server, cache)
    fetch(server, cache)
    assert server.traffic.again == 0


def test_damaged_weights_are_fetched_again(
    site: Site, server: ServerApi, cache: ArtefactCache
) -> None:
    site.content = CONTENT[:-1] + b"?"
    with pytest.raises(BrokenDownload):
        fetch(server, cache)
    site.content = CONTENT
    fetch(server, cache)
    assert server.traffic.again == len(CONTENT)


def test_dropped_weights_are_downloaded_again(
    site: Site, server: ServerApi, cache: ArtefactCache
) -> None:
    fetch(server, cache).unlink()
    fetch(server, cache)
    assert server.traffic.again == 0, "nothing was lost on the way"


def test_lost_part_of_an_upload_is_sent_again(site: Site, server: ServerApi, update: Path) -> None:
    server.upload("a", update, SHA256)
    assert server.traffic.again == 0
    site.part = CONTENT[:2_000_000]
    server.upload("a", update, SHA256, resume=True)
    assert server.traffic.again == len(CONTENT) - 2_000_000


def test_call_on_a_dead_connection_is_repeated(site: Site, server: ServerApi) -> None:
    site.answers = [(200, {}, b"{}")]
    server.assignment("a")
    sock = server._http._connection.open_socket
    sock.has_news = lambda: False  # type: ignore[method-assign]  # it dies right after the check
    sock._plain._socket.shutdown(socket.SHUT_RDWR)
    before = server.traffic.up
    server.assignment("a")
    assert server.traffic.again <= server.traffic.up - before
    assert site.connections == 2


def test_fastest_small_call_is_the_round_trip(site: Site, server: ServerApi) -> None:
    assert server.traffic.rtt_s is None
    began = time.monotonic()
    server.assignment("a")
    first = server.traffic.rtt_s
    assert first is not None and 0 < first <= time.monotonic() - began
    traffic = Traffic()
    for seconds in (0.3, 0.1, 0.2, 0.0, -1.0):
        traffic.answered(seconds)
    assert traffic.rtt_s == 0.1
    for _ in range(20):
        traffic.answered(0.5)
    assert traffic.rtt_s == 0.5, "what was quick long ago is forgotten"


def test_counts_have_the_names_of_a_report() -> None:
    traffic = Traffic()
    traffic.up, traffic.down = 100, 200
    counted = Counted(traffic)
    assert "rtt_s" not in counted.values()
    traffic.up += 5
    traffic.again += 3
    traffic.answered(0.25)
    assert counted.values() == {
        "net_up_bytes": 5,
        "net_down_bytes": 0,
        "retransfer_bytes": 3,
        "rtt_s": 0.25,
    }
