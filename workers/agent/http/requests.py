"""Requests and large bodies over one kept connection: file to socket, socket to buffer."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from fedcore.errors import ServerUnavailable
from workers.agent.http.byte_counts import Traffic
from workers.agent.http.connection import Connection, InterruptibleSocket, no_check
from workers.agent.http.throttle import LinkThrottle

QUICK_S = 10.0  # nothing moves for so long: the server is away
SENDING_S = 30.0
PATIENT_S = 600.0  # a server hashes, checks and stores a large update before it answers
SEND_AT_ONCE = 4 * 2**20
READ_AT_ONCE = 1 << 18  # for TLS, whose bytes pass through this process
SMALL = 4096  # a request of so many bytes tells how long the way is
LARGEST_ANSWER = 64 * 2**20

Check = Callable[[], None]


@dataclass(frozen=True)
class ServerResponse:
    """A small answer, its body read. Names of headers are in lower case."""

    status: int
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def number(self, name: str) -> int | None:
        """A header's whole number; None where it has none."""
        text = self.headers.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else None


class ResponseBody:
    """A large answer whose body is still to come."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self._left = None if response.chunked else response.length

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes as they come; 0 at the end. Raises ServerUnavailable where it is cut."""
        try:
            return self._readinto(buffer)
        except (OSError, HTTPException) as error:
            raise unavailable(error) from error

    def _readinto(self, buffer: memoryview) -> int:
        if self._left is None:
            return self._response.readinto(buffer)
        if not self._left:
            self._response.close()
            return 0
        got = int(self._response.fp.readinto1(buffer[: self._left]))  # type: ignore[attr-defined]
        if not got:
            raise ConnectionResetError(f"the answer was cut {self._left} bytes before its end")
        self._left -= got
        return got


class HttpConnection:
    """The way to one server, on a connection that is kept between calls.

    Raises ServerUnavailable for whatever goes wrong on the way, and what ``check`` raises.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        tls: ssl.SSLContext,
        traffic: Traffic,
        pace: LinkThrottle | None = None,
    ) -> None:
        self._url = urlsplit(url)
        self._headers = dict(headers)
        self._traffic = traffic
        self._connection = Connection(self._url, traffic, tls, pace)
        self._used = False
        self._check: Check = no_check

    def close(self) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> ServerResponse:
        """Send something small, read the answer."""
        with self._guarded(no_check):
            return _read(self._asked(method, path, headers, body))

    @contextmanager
    def fetch(
        self, path: str, headers: Mapping[str, str], check: Check
    ) -> Iterator[tuple[ServerResponse, ResponseBody]]:
        """Ask for something large. An answer other than 2xx has its body in the ServerResponse."""
        with self._guarded(check):
            response = self._asked("GET", path, headers, None)
            large = 200 <= response.status < 300
            answer = _head(response) if large else _read(response)
        try:
            yield answer, ResponseBody(response)
        finally:
            if not response.isclosed():
                self.close()

    def _asked(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> HTTPResponse:
        """The head of the answer. A kept connection that turns out dead is replaced once."""
        kept, before = self._used, self._traffic.up
        try:
            return self._exchange(method, path, headers, body)
        except (ConnectionError, HTTPException):
            if not kept:
                raise
        self._traffic.again += self._traffic.up - before
        self.close()  # every call of the protocol may be repeated
        self._ready(self._check, QUICK_S)
        return self._exchange(method, path, headers, body)

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> HTTPResponse:
        began = time.monotonic()
        self._begin(method, path, headers, body)
        response = self._connection.getresponse()
        if len(body or b"") <= SMALL:
            self._traffic.answered(time.monotonic() - began)
        return response

    def send_file(
        self, path: str, headers: Mapping[str, str], file: Path, offset: int, check: Check
    ) -> ServerResponse:
        """PATCH a file's bytes from ``offset`` to its end; stops early where an answer comes."""
        count = file.stat().st_size - offset
        told = {**headers, "Content-Length": str(count)}
        with file.open("rb") as source, self._guarded(check):
            self._begin("PATCH", path, told, None)
            line = self._connection.line
            line.idle_s = SENDING_S
            try:
                sent = self._send_all(path, source.fileno(), offset, count)
            except ConnectionError:
                sent = -1  # the server may have said why before it closed
            line.idle_s = PATIENT_S if sent == count else QUICK_S
            answer = _read(self._connection.getresponse())
            if sent < count:
                self.close()
            return answer

    def _send_all(self, path: str, file: int, offset: int, count: int) -> int:
        """How many bytes went before all were sent, or an answer came."""
        line = self._connection.line
        sent = 0
        while sent < count and not line.has_news():
            went = _send_some(line, file, offset + sent, count - sent)
            if not went:
                raise OSError("the file became shorter while it was sent")
            self._traffic.moved(path, offset + sent, went)
            sent += went
        return sent

    def _begin(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        connection = self._connection
        url = f"{connection.prefix}{self._url.path}{path}"
        connection.putrequest(method, url, skip_accept_encoding=True)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in {**self._headers, **headers, **connection.extra}.items():
            connection.putheader(name, value)
        connection.endheaders(body)

    @contextmanager
    def _guarded(self, check: Check) -> Iterator[None]:
        try:
            self._used = self._connection.sock is not None
            if self._used and self._connection.line.has_news():
                self.close()  # the server closed it while nobody asked for anything
                self._used = False
            self._ready(check, QUICK_S)
            yield
        except (OSError, HTTPException) as error:
            self.close()
            raise unavailable(error) from error
        except BaseException:
            self.close()
            raise

    def _ready(self, check: Check, idle_s: float) -> None:
        self._check = check
        line = self._connection.line
        line.check, line.idle_s = check, idle_s


def _send_some(line: InterruptibleSocket, file: int, offset: int, count: int) -> int:
    if line.is_plain and hasattr(os, "sendfile"):
        return line.sendfile(file, offset, min(count, SEND_AT_ONCE))
    piece = os.pread(file, min(count, READ_AT_ONCE), offset)
    line.sendall(piece)
    return len(piece)


def _head(response: HTTPResponse) -> ServerResponse:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return ServerResponse(response.status, response.reason, headers)


def _read(response: HTTPResponse) -> ServerResponse:
    head = _head(response)
    body = response.read(LARGEST_ANSWER)
    if len(body) == LARGEST_ANSWER:
        raise HTTPException("an answer is larger than any call of the protocol has")
    if response.length and 200 <= head.status < 300:
        raise ConnectionResetError(f"the answer was cut {response.length} bytes before its end")
    response.close()
    return ServerResponse(head.status, head.reason, head.headers, body)


def unavailable(error: Exception) -> ServerUnavailable:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ServerUnavailable(
            "the server's certificate is not trusted; set EDGEWISE_CA_FILE to its authority's file"
        )
    return ServerUnavailable(f"no answer from the server ({error or type(error).__name__})")
