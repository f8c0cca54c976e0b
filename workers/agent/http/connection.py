"""One connection to a server, whose waiting can be interrupted.

Every wait is cut into ticks, between which ``check`` is called: it may raise to give up.
"""

from __future__ import annotations

import base64
import io
import socket
import ssl
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from workers.agent.http.byte_counts import Traffic
from workers.agent.http.socket import Check, CountingSocket, no_check
from workers.agent.http.throttle import LinkThrottle
from workers.agent.http.tls import Tls

CONNECT_S = 5.0
READ_AHEAD = 1 << 16
DEFAULT_PORTS = {"http": 80, "https": 443}

T = TypeVar("T")
Buffer = bytes | bytearray | memoryview

__all__ = ["Connection", "InterruptibleSocket", "no_check"]


class InterruptibleSocket:
    """A socket as http.client wants it. ``idle_s``: how long nothing may move."""

    def __init__(self, wire: CountingSocket, traffic: Traffic) -> None:
        self._wire = wire
        self._traffic = traffic
        self._channel: CountingSocket | Tls = wire
        self._readers = 0
        self._closed = False
        self.idle_s = CONNECT_S

    @property
    def check(self) -> Check:
        return self._wire.check

    @check.setter
    def check(self, check: Check) -> None:
        self._wire.check = check

    @property
    def is_plain(self) -> bool:
        return self._channel is self._wire

    def secure(self, context: ssl.SSLContext, name: str) -> None:
        """From here on by TLS, with the server of that name."""
        self._channel = channel = Tls(self._wire, context, name)
        self._moved(channel.shake_hands)

    def has_news(self) -> bool:
        """Whether the other side said something, or has gone."""
        return self._channel.has_news()

    def recv_into(self, buffer: Any) -> int:
        return self._moved(lambda: self._channel.recv_into(buffer))

    def sendall(self, data: Buffer) -> None:
        left = memoryview(data)
        while left:
            left = left[self._send(left) :]

    def _send(self, data: memoryview) -> int:
        return self._moved(lambda: self._channel.send(data))

    def sendfile(self, file: int, offset: int, count: int) -> int:
        """Send bytes of a file without a copy through this process; how many went."""
        return self._moved(lambda: self._wire.sendfile(file, offset, count))

    def _moved(self, move: Callable[[], T]) -> T:
        """What ``move`` returns once it need not wait. Raises TimeoutError after ``idle_s``."""
        until, passed = time.monotonic() + self.idle_s, self._passed
        while True:
            self.check()
            try:
                return move()
            except TimeoutError:
                pass
            if self._passed != passed:
                until, passed = time.monotonic() + self.idle_s, self._passed
            if time.monotonic() > until:
                raise TimeoutError(f"nothing moved for {self.idle_s:.0f} s")

    @property
    def _passed(self) -> int:
        return self._traffic.up + self._traffic.down

    def setsockopt(self, *values: Any) -> None:
        self._wire.setsockopt(*values)

    def makefile(self, *_args: Any, **_options: Any) -> io.BufferedReader:
        self._readers += 1
        return io.BufferedReader(_SocketReader(self), READ_AHEAD)

    def released(self) -> None:
        """A reader is done."""
        self._readers -= 1
        if self._closed and self._readers <= 0:
            self._wire.close()

    def close(self) -> None:
        """As a socket's: the answer that is being read may be read to its end."""
        self._closed = True
        if self._readers <= 0:
            self._wire.close()


class _SocketReader(io.RawIOBase):
    def __init__(self, line: InterruptibleSocket) -> None:
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
    """http.client's connection over an InterruptibleSocket, through the environment's proxy."""

    def __init__(
        self,
        url: SplitResult,
        traffic: Traffic,
        tls: ssl.SSLContext,
        pace: LinkThrottle | None = None,
    ) -> None:
        host, port = url.hostname or "", url.port or DEFAULT_PORTS[url.scheme]
        self._tls = tls if url.scheme == "https" else None
        self._traffic = traffic
        self._pace = pace
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
        self._create_connection = self._open

    @property
    def line(self) -> InterruptibleSocket:
        if self.sock is None:
            self.connect()
        line: Any = self.sock
        assert isinstance(line, InterruptibleSocket)
        return line

    def connect(self) -> None:
        super().connect()
        if self._tls:
            self.line.secure(self._tls, self._name)

    def _open(self, *where: Any) -> InterruptibleSocket:
        """What http.client makes its connections with; so a proxy's CONNECT is counted too."""
        inner = socket.create_connection(*where)
        if self._pace:
            self._pace.connect(no_check)
        return InterruptibleSocket(CountingSocket(inner, self._traffic, self._pace), self._traffic)


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
