"""TLS servers that answer and close, as proxies do: the agent gets the answer, or an error."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedcore.errors import ServerRefused, ServerUnavailable, Stopped
from tests.agent.conftest import ROOT, wait_for
from tests.agent.transfers import SHA256
from workers.agent.agent_errors import Busy
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.http.server_api import Address, ServerApi

# Before the fix these loops never ended; nothing here waits for anything but loopback sockets.
pytestmark = pytest.mark.timeout(60)

REASON = b'{"detail": "because"}'
STATUSES = {502: Busy, 503: Busy, 413: ServerRefused}


def with_length(status: int) -> bytes:
    return b"HTTP/1.1 %d No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status, len(REASON), REASON,
    )  # fmt: skip


def until_close(status: int) -> bytes:
    return b"HTTP/1.1 %d No\r\nConnection: close\r\n\r\n%b" % (status, REASON)


def chunked(status: int) -> bytes:
    head = b"HTTP/1.1 %d No\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % status
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(REASON), REASON)


def close_notify(connection: ssl.SSLSocket) -> None:
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        connection.unwrap()  # sends the alert and does not wait for the client's
    end_of_stream(connection)


def end_of_stream(connection: ssl.SSLSocket) -> None:
    """Without the alert that distinguishes an end of the stream from a cut."""
    with socket.socket(fileno=os.dup(connection.fileno())) as raw, contextlib.suppress(OSError):
        raw.shutdown(socket.SHUT_WR)
        raw.settimeout(10)
        while raw.recv(65_536):  # closing with unread bytes would be a reset
            pass


def reset(connection: ssl.SSLSocket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Ending = Callable[[ssl.SSLSocket], None]


@dataclass
class Proxy:
    """Reads the head of each request, sends ``answer`` and ends the connection with ``ending``."""

    context: ssl.SSLContext
    answer: bytes = b""
    ending: Ending = close_notify
    connections: int = 0
    is_silent = False
    hangs_up_first = False

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.listener.getsockname()[1]}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self.listener.accept()
                self.connections += 1
                with raw, contextlib.suppress(OSError):
                    self._answer(raw)

    def _answer(self, raw: socket.socket) -> None:
        if self.hangs_up_first:
            raw.recv(65_536)
            return
        connection = self.context.wrap_socket(raw, server_side=True)
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65_536)
        connection.sendall(self.answer)
        if self.is_silent:
            self.over.wait(60)
        self.ending(connection)
        connection.close()

    def close(self) -> None:
        self.over.set()
        self.listener.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    command = ["sh", str(ROOT / "deploy" / "make-certs.sh"), "localhost"]
    subprocess.run(command, env={"CERTS": str(folder), "PATH": "/usr/bin:/bin"}, check=True)
    return folder


@pytest.fixture
def proxy(certificates: Path) -> Iterator[Proxy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "fullchain.pem", certificates / "privkey.pem")
    started = Proxy(context)
    yield started
    started.close()


@pytest.fixture
def server(proxy: Proxy, certificates: Path) -> Iterator[ServerApi]:
    client = ServerApi(Address(proxy.url, "secret", certificates / "ca.crt"))
    yield client
    client.close()


@pytest.mark.parametrize("ending", [close_notify, end_of_stream])
@pytest.mark.parametrize("framed", [with_length, until_close, chunked])
@pytest.mark.parametrize("status", STATUSES)
def test_error_then_close_is_that_error(
    proxy: Proxy, server: ServerApi, status: int, framed: Callable[[int], bytes], ending: Ending
) -> None:
    proxy.answer, proxy.ending = framed(status), ending
    for _ in range(2):
        with pytest.raises(STATUSES[status], match="because"):
            server.assignment("a")
    assert proxy.connections == 2


@pytest.mark.parametrize("ending", [close_notify, end_of_stream])
@pytest.mark.parametrize("status", STATUSES)
def test_error_then_close_ends_a_download(
    proxy: Proxy, server: ServerApi, cache: ArtefactCache, status: int, ending: Ending
) -> None:
    proxy.answer, proxy.ending = until_close(status), ending
    with pytest.raises(STATUSES[status], match="because"):
        cache.fetch(server, SHA256, 1000, lambda: None)


@pytest.mark.parametrize("ending", [close_notify, end_of_stream, reset])
@pytest.mark.parametrize("status", STATUSES)
def test_error_then_close_ends_an_upload(
    proxy: Proxy, server: ServerApi, tmp_path: Path, status: int, ending: Ending
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**28)
    proxy.answer, proxy.ending = with_length(status), ending
    with pytest.raises((STATUSES[status], ServerUnavailable)) as caught:
        server.upload("a", large, "0" * 64)
    assert ending is reset or "because" in str(caught.value)
    assert server.traffic.up < 2**27


@pytest.mark.parametrize("ending", [close_notify, end_of_stream, reset])
@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a": 1}',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{"a": 1}',
    ],
    ids=["nothing", "status", "header", "body", "chunk"],
)
def test_half_an_answer_is_unavailable(
    proxy: Proxy, server: ServerApi, half: bytes, ending: Ending
) -> None:
    proxy.answer, proxy.ending = half, ending
    with pytest.raises(ServerUnavailable):
        server.assignment("a")


@pytest.mark.parametrize("ending", [close_notify, end_of_stream, reset])
def test_half_a_download_is_unavailable(
    proxy: Proxy, server: ServerApi, cache: ArtefactCache, ending: Ending
) -> None:
    proxy.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000)
    proxy.ending = ending
    with pytest.raises(ServerUnavailable):
        cache.fetch(server, SHA256, 100_000, lambda: None)


def test_server_closing_in_the_handshake_is_unavailable(proxy: Proxy, server: ServerApi) -> None:
    proxy.hangs_up_first = True
    with pytest.raises(ServerUnavailable):
        server.assignment("a")


def test_silent_server_leaves_a_download_cancellable(
    proxy: Proxy, server: ServerApi, cache: ArtefactCache
) -> None:
    proxy.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000)
    proxy.is_silent = True

    def check() -> None:
        if server.traffic.down > 50_000:
            raise Stopped("cancelled")

    with pytest.raises(Stopped):
        cache.fetch(server, SHA256, 100_000, check)


def test_closed_connection_has_news(proxy: Proxy, server: ServerApi) -> None:
    proxy.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    for _ in range(3):
        assert server.assignment("a") == {}
        wait_for(server._http._connection.open_socket.has_news)
    assert proxy.connections == 3
    assert server.traffic.again == 0


def test_reused_connection_runs_only_the_new_check(
    proxy: Proxy, server: ServerApi, cache: ArtefactCache
) -> None:
    proxy.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    proxy.is_silent = True  # keeps the connection open until ``over`` is set
    cancelled = False

    def check() -> None:
        if cancelled:
            raise Stopped("cancelled")

    with server.download(SHA256, check=check) as (_, body):
        buffer = bytearray(2)
        assert body.readinto(memoryview(buffer)) == 2 and body.readinto(memoryview(buffer)) == 0
    proxy.over.set()
    wait_for(server._http._connection.open_socket._plain.has_news)  # the server has closed
    cancelled = True
    assert server.assignment("b") == {}
    assert proxy.connections == 2


@pytest.mark.parametrize("ending", [close_notify, end_of_stream])
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 204", b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\n{}"], ids=["head", "length"]
)
def test_success_of_unknown_length_is_unavailable(
    proxy: Proxy, server: ServerApi, answer: bytes, ending: Ending
) -> None:
    proxy.answer, proxy.ending = answer, ending
    with pytest.raises(ServerUnavailable):
        server.assignment("a")
    with pytest.raises(ServerUnavailable), server.download(SHA256):
        pass
