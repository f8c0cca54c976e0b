"""One HTTP connection to a server, whose waits can be interrupted.

Every wait is cut into ticks; between ticks ``check`` is called, which may raise to give up.
"""

from __future__ import annotations

import base64
import io
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
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


class InterruptibleSocket:
    """A socket as http.client expects it, plain or over TLS.

    ``idle_s`` is how long nothing may move before TimeoutError is raised.
    """

    def __init__(self, plain: CountingSocket, traffic: Traffic) -> None:
        self._plain = plain
        self._traffic = traffic
        self._channel: CountingSocket | Tls = plain
        self._readers = 0
        self._closed = False
        self.idle_s = CONNECT_S

    @property
    def check(self) -> Check:
        return self._plain.check

    @check.setter
    def check(self, check: Check) -> None:
        self._plain.check = check

    @property
    def is_plain(self) -> bool:
        return self._channel is self._plain

    def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Switch to TLS."""
        self._channel = channel = Tls(self._plain, context, server_name)
        self._until_moved(channel.shake_hands)

    def peer_certificate(self) -> bytes:
        """DER; empty without TLS."""
        return self._channel.peer_certificate() if isinstance(self._channel, Tls) else b""

    def has_news(self) -> bool:
        """Whether the server has sent something, or closed the connection."""
        return self._channel.has_news()

    def recv_into(self, buffer: Any) -> int:
        return self._until_moved(lambda: self._channel.recv_into(buffer))

    def sendall(self, data: Buffer) -> None:
        unsent = memoryview(data)
        while unsent:
            sent = self._until_moved(partial(self._channel.send, unsent))
            unsent = unsent[sent:]

    def sendfile(self, file: int, offset: int, count: int) -> int:
        """Send bytes of a file without copying them through this process; returns how many."""
        return self._until_moved(lambda: self._plain.sendfile(file, offset, count))

    def _until_moved(self, move: Callable[[], T]) -> T:
        """Repeat ``move`` until it succeeds. Raises TimeoutError after ``idle_s`` without bytes."""
        until, total_bytes = time.monotonic() + self.idle_s, self._total_bytes
        while True:
            self.check()
            try:
                return move()
            except TimeoutError:
                pass
            if self._total_bytes != total_bytes:
                until, total_bytes = time.monotonic() + self.idle_s, self._total_bytes
            if time.monotonic() > until:
                raise TimeoutError(f"nothing moved for {self.idle_s:.0f} s")

    @property
    def _total_bytes(self) -> int:
        return self._traffic.up + self._traffic.down

    def setsockopt(self, *values: Any) -> None:
        self._plain.setsockopt(*values)

    def makefile(self, *_args: Any, **_options: Any) -> io.BufferedReader:
        self._readers += 1
        return io.BufferedReader(_SocketReader(self), READ_AHEAD)

    def reader_closed(self) -> None:
        self._readers -= 1
        if self._closed and self._readers <= 0:
            self._plain.close()

    def close(self) -> None:
        """Close, as a socket does: an answer being read may be read to its end."""
        self._closed = True
        if self._readers <= 0:
            self._plain.close()


class _SocketReader(io.RawIOBase):
    def __init__(self, source: InterruptibleSocket) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._source.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._source.reader_closed()


class Connection(HTTPConnection):
    """http.client's connection over an InterruptibleSocket, through the environment's proxy."""

    def __init__(
        self,
        url: SplitResult,
        traffic: Traffic,
        tls: ssl.SSLContext,
        throttle: LinkThrottle | None = None,
    ) -> None:
        host, port = url.hostname or "", url.port or DEFAULT_PORTS[url.scheme]
        self._tls = tls if url.scheme == "https" else None
        self._traffic = traffic
        self._throttle = throttle
        self._server_name = host
        # A proxy for plain HTTP wants absolute URLs.
        self.prefix = ""
        self.extra_headers: dict[str, str] = {}
        proxies = getproxies()  # HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY
        address = proxies.get(url.scheme) or proxies.get("all") or ""
        if not address or proxy_bypass(host):
            super().__init__(host, port, timeout=CONNECT_S)
        else:
            proxy = urlsplit(address if "://" in address else f"http://{address}")
            super().__init__(proxy.hostname or "", proxy.port or 80, timeout=CONNECT_S)
            if self._tls:
                self.set_tunnel(host, port, _proxy_headers(proxy))
            else:
                self.prefix, self.extra_headers = f"http://{url.netloc}", _proxy_headers(proxy)
        self.default_port = DEFAULT_PORTS[url.scheme]
        # http.client's hook, so that a proxy's CONNECT is counted too.
        self._create_connection = self._open_socket

    @property
    def open_socket(self) -> InterruptibleSocket:
        """The socket, connected first if needed."""
        if self.sock is None:
            self.connect()
        sock: Any = self.sock
        assert isinstance(sock, InterruptibleSocket)
        return sock

    def connect(self) -> None:
        super().connect()
        if self._tls:
            self.open_socket.start_tls(self._tls, self._server_name)

    def _open_socket(self, *address: Any) -> InterruptibleSocket:
        inner = socket.create_connection(*address)
        if self._throttle:
            self._throttle.connect(no_check)
        plain = CountingSocket(inner, self._traffic, self._throttle)
        return InterruptibleSocket(plain, self._traffic)


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    user_info = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user_info.encode()).decode()}"}
