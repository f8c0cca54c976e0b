"""Bytes between disk and socket under a real uvicorn."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from webapp.transfer.asgi_tools import Receive, Scope, Send, header, send_response
from webapp.transfer.socket_body import SocketReader, send_file, uvicorn_cycle

SIZE = 5 * 2**20 + 321
CONTENT = os.urandom(SIZE)


class Site:
    """Takes a body in (PATCH) and tells its hash, or sends a file (GET, with Range a-b)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "PATCH":
            await self.take(receive, send, int(header(scope, b"content-length")))
        else:
            await self.give(send, header(scope, b"range"))

    async def take(self, receive: Receive, send: Send, length: int) -> None:
        incoming = SocketReader(uvicorn_cycle(receive), length)
        digest = hashlib.sha256()
        try:
            while not incoming.is_read and not incoming.is_cut:
                self.seen.append(await incoming.move(digest.update, 0.2))
        finally:
            incoming.close()
        if incoming.is_cut:
            self.seen.append("cut")
            return
        await send_response(send, 200, {"Connection": "close"}, digest.hexdigest().encode())

    async def give(self, send: Send, range_text: str) -> None:
        start, stop = (int(text) for text in range_text.split("-")) if range_text else (0, SIZE)
        headers = [(b"content-length", str(stop - start).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        handle = os.open(self.path, os.O_RDONLY)
        try:
            await send_file(uvicorn_cycle(send), handle, start, stop)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ConnectionError as error:
            self.seen.append(type(error))
        finally:
            os.close(handle)


@pytest.fixture(params=["uvloop", "asyncio"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Site, int]]:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    site = Site(path)
    config = uvicorn.Config(
        site, port=0, loop=request.param, http="httptools", lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield site, server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def test_bodies_arrive_whole(running: tuple[Site, int]) -> None:
    site, port = running
    for size in (1, 70_000, SIZE):
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("PATCH", "/", CONTENT[:size])
        response = connection.getresponse()
        assert response.read().decode() == hashlib.sha256(CONTENT[:size]).hexdigest()
        assert response.getheader("connection") == "close"
    assert sum(site.seen) == 1 + 70_000 + SIZE


def test_slow_sender_is_awaited(running: tuple[Site, int]) -> None:
    site, port = running
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sender:
        sender.sendall(b"PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nab")
        wait_for(lambda: 0 in site.seen)
        sender.sendall(b"cd")
        wait_for(lambda: site.seen.count(2) == 2)
        sender.sendall(b"ef")
        assert hashlib.sha256(b"abcdef").hexdigest().encode() in sender.makefile("rb").read()


def test_sender_disconnect_is_detected(running: tuple[Site, int]) -> None:
    site, port = running
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sender:
        sender.sendall(b"PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\nab")
    wait_for(lambda: "cut" in site.seen)


def test_files_keep_the_connection_open(running: tuple[Site, int]) -> None:
    _, port = running
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    for start, stop in ((0, SIZE), (5, 6), (SIZE - 1, SIZE), (1000, SIZE - 7)):
        connection.request("GET", "/", headers={"Range": f"{start}-{stop}"})
        number = connection.sock.fileno()
        assert connection.getresponse().read() == CONTENT[start:stop]
        assert connection.sock is not None and connection.sock.fileno() == number


def test_reader_disconnect_is_detected(running: tuple[Site, int]) -> None:
    site, port = running
    site.path.write_bytes(bytes(64 * 2**20))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as reader:
        reader.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nRange: 0-{64 * 2**20}\r\n\r\n".encode())
        assert reader.recv(100)
    wait_for(lambda: site.seen)
    assert issubclass(site.seen[0], ConnectionError)


def test_other_servers_have_no_cycle() -> None:
    async def send(message: Any) -> None:
        """An ASGI server's, but not uvicorn's."""

    assert uvicorn_cycle(send) is None
    assert uvicorn_cycle(asyncio.Event().set) is None


def wait_for(what: Any) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.01)
