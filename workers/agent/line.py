"""One connection to a server: bytes counted where they pass, waiting that can be interrupted.

Every wait is cut into ticks, between which ``check`` is called: it may raise to give up.
"""

from __future__ import annotations

import base64
import io
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from workers.agent.traffic import Traffic

TICK_S = 0.1
CONNECT_S = 5.0
READ_AHEAD = 1 << 16
DEFAULT_PORTS = {"http": 80, "https": 443}

Buffer = bytes | bytearray | memoryview


def no_check() -> None:
    """Nothing to look at while waiting."""


class Line:
    """A socket as http.client wants it. ``idle_s``: how long nothing may move."""

    def __init__(self, inner: socket.socket, traffic: Traffic) -> None:
        self._socket = inner
        self._traffic = traffic
        self._early = b""
        self._readers = 0
        self._closed = False
        self.idle_s = CONNECT_S
        self.check: Callable[[], None] = no_check
        self.is_plain = not isinstance(inner, ssl.SSLSocket)
        inner.settimeout(TICK_S)

    def has_news(self) -> bool:
        """Whether the other side said something, or has gone.

        Bytes are tried, not the socket: TLS has messages of its own that are no news.
        """
        if not self._early:
            self._socket.settimeout(0)
            try:
                self._early = self._socket.recv(1)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            except OSError:
                return True
            finally:
                self._socket.settimeout(TICK_S)
            self._traffic.down += len(self._early)
        return True

    def recv_into(self, buffer: Any) -> int:
        if self._early:
            early, self._early = self._early, b""
            buffer[: len(early)] = early
            return len(early)
        got = self._moved(lambda: self._socket.recv_into(buffer))
        self._traffic.down += got
        return got

    def sendall(self, data: Buffer) -> None:
        left = memoryview(data)
        while left:
            left = left[self._send(left) :]

    def _send(self, data: memoryview) -> int:
        sent = self._moved(lambda: self._socket.send(data))
        self._traffic.up += sent
        return sent

    def sendfile(self, file: int, offset: int, count: int) -> int:
        """Send bytes of a file without a copy through this process; how many went."""
        out = self._socket.fileno()
        sent = self._moved(lambda: os.sendfile(out, file, offset, count))
        self._traffic.up += sent
        return sent

    def _moved(self, move: Callable[[], int]) -> int:
        """What ``move`` returns once it need not wait. Raises TimeoutError after ``idle_s``."""
        until = time.monotonic() + self.idle_s
        while True:
            self.check()
            try:
                return move()
            except BlockingIOError:  # of sendfile, which knows no timeout
                self._wait_to_write()
            except TimeoutError:
                pass
            if time.monotonic() > until:
                raise TimeoutError(f"nothing moved for {self.idle_s:.0f} s")

    def _wait_to_write(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_WRITE)
            selector.select(TICK_S)

    def makefile(self, *_args: Any, **_options: Any) -> io.BufferedReader:
        self._readers += 1
        return io.BufferedReader(_Reader(self), READ_AHEAD)

    def released(self) -> None:
        """A reader is done."""
        self._readers -= 1
        if self._closed and self._readers <= 0:
            self._socket.close()

    def close(self) -> None:
        """As a socket's: the answer that is being read may be read to its end."""
        self._closed = True
        if self._readers <= 0:
            self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._line.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._line.released()


class Connection(HTTPConnection):
    """http.client's connection over a Line, through the proxy that the environment names."""

    def __init__(self, url: SplitResult, traffic: Traffic, tls: ssl.SSLContext) -> None:
        host, port = url.hostname or "", url.port or DEFAULT_PORTS[url.scheme]
        self._tls = tls if url.scheme == "https" else None
        self._traffic = traffic
        self._name = host
        # A proxy for plain HTTP is asked for whole addresses.
        self.prefix = ""
        self.extra: dict[str, str] = {}
        proxy = _proxy_of(url.scheme, host)
        if proxy is None:
            super().__init__(host, port, timeout=CONNECT_S)
        else:
            super().__init__(proxy.hostname or "", proxy.port or 80, timeout=CONNECT_S)
            if self._tls:
                self.set_tunnel(host, port, _credentials(proxy))
            else:
                self.prefix, self.extra = f"http://{url.netloc}", _credentials(proxy)
        self.default_port = DEFAULT_PORTS[url.scheme]

    @property
    def line(self) -> Line:
        if self.sock is None:
            self.connect()
        line: Any = self.sock
        assert isinstance(line, Line)
        return line

    def connect(self) -> None:
        super().connect()
        inner = self.sock
        if self._tls:
            inner = self._tls.wrap_socket(inner, server_hostname=self._name)
        self.sock = Line(inner, self._traffic)  # type: ignore[assignment]


def _proxy_of(scheme: str, host: str) -> SplitResult | None:
    """The proxy for an address, from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all") or ""
    if not found or proxy_bypass(host):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    told = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(told.encode()).decode()}"}
