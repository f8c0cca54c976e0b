"""HTTP requests and large bodies over one kept-alive connection.

Uploads go from file to socket, downloads from socket to the caller's buffer.
"""

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
from workers.agent.http.connection import Connection
from workers.agent.http.socket import no_check
from workers.agent.http.throttle import LinkThrottle
from workers.agent.http.tls_errors import certificate_problem

QUICK_S = 10.0  # without any byte for this long, the server counts as away
SENDING_S = 30.0
PATIENT_S = 600.0  # a server hashes, checks and stores a large update before it answers
SENDFILE_BYTES = 4 * 2**20
TLS_READ_BYTES = 1 << 18
SMALL_BYTES = 4096  # requests up to this size measure the round-trip time
MAX_ANSWER_BYTES = 64 * 2**20

Check = Callable[[], None]


@dataclass(frozen=True)
class ServerResponse:
    """A response with its complete body. Header names are in lower case."""

    status: int
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def integer(self, header: str) -> int | None:
        """The header's value; None where it is missing or not a number."""
        text = self.headers.get(header, "")
        return int(text) if text.isascii() and text.isdigit() else None


class ResponseBody:
    """The body of a large response, still to be read."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self._remaining = None if response.chunked else response.length

    @property
    def length(self) -> int | None:
        """Bytes that are still to come; None if the response does not say."""
        return self._remaining

    def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes; 0 at the end. Raises ServerUnavailable where the body is cut."""
        try:
            if self._remaining is None:
                return self._response.readinto(buffer)
            if not self._remaining:
                self._response.close()
                return 0
            source = self._response.fp
            count = int(source.readinto1(buffer[: self._remaining]))  # type: ignore[attr-defined]
            if not count:
                raise ConnectionResetError(
                    f"the answer was cut {self._remaining} bytes before its end"
                )
        except (OSError, HTTPException) as error:
            raise unavailable(error) from error
        self._remaining -= count
        return count


class HttpConnection:
    """Requests to one server, over a connection that is kept between calls.

    Raises ServerUnavailable for any transport error, and whatever ``check`` raises.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        tls: ssl.SSLContext,
        traffic: Traffic,
        throttle: LinkThrottle | None = None,
    ) -> None:
        self._url = urlsplit(url)
        self._headers = dict(headers)
        self._traffic = traffic
        self._connection = Connection(self._url, traffic, tls, throttle)
        self._reused = False
        self._check: Check = no_check
        self._idle_s = QUICK_S

    def close(self) -> None:
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        check: Check = no_check,
        idle_s: float = QUICK_S,
    ) -> ServerResponse:
        """Send a small request and read the whole response, which may begin after ``idle_s``."""
        with self._guarded(check, idle_s):
            return _read(self._response_to(method, path, headers, body))

    @contextmanager
    def fetch(
        self, path: str, headers: Mapping[str, str], check: Check
    ) -> Iterator[tuple[ServerResponse, ResponseBody]]:
        """GET a large body. A status other than 2xx has its body in the ServerResponse."""
        with self._guarded(check):
            response = self._response_to("GET", path, headers, None)
            large = 200 <= response.status < 300
            answer = _head(response) if large else _read(response)
        try:
            yield answer, ResponseBody(response)
        finally:
            if not response.isclosed():
                self.close()

    def _response_to(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> HTTPResponse:
        """Send a request. A kept-alive connection that turns out dead is replaced once."""
        reused, up_before = self._reused, self._traffic.up
        try:
            return self._exchange(method, path, headers, body)
        except (ConnectionError, HTTPException):
            if not reused:
                raise
        self._traffic.again += self._traffic.up - up_before
        self.close()  # every call of the protocol may be repeated
        self._prepare_socket(self._check)
        return self._exchange(method, path, headers, body)

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> HTTPResponse:
        began = time.monotonic()
        self._send_head(method, path, headers, body)
        response = self._connection.getresponse()
        if len(body or b"") <= SMALL_BYTES:
            self._traffic.answered(time.monotonic() - began)
        return response

    def send_file(
        self, path: str, headers: Mapping[str, str], file: Path, offset: int, check: Check
    ) -> ServerResponse:
        """PATCH a file's bytes from ``offset`` to its end; stops early where a response comes."""
        count = file.stat().st_size - offset
        headers = {**headers, "Content-Length": str(count)}
        with file.open("rb") as source, self._guarded(check):
            self._send_head("PATCH", path, headers, None)
            sock = self._connection.open_socket
            sock.idle_s = SENDING_S
            try:
                sent = self._send_bytes(path, source.fileno(), offset, count)
            except ConnectionError:
                sent = -1  # the server may have sent its reason before it closed
            sock.idle_s = PATIENT_S if sent == count else QUICK_S
            response = _read(self._connection.getresponse())
            if sent < count:
                self.close()
            return response

    def _send_bytes(self, path: str, file: int, offset: int, count: int) -> int:
        """Send until done or the server responds; returns how many bytes were sent."""
        sock = self._connection.open_socket
        sent = 0
        while sent < count and not sock.has_news():
            if sock.is_plain and hasattr(os, "sendfile"):
                size = min(count - sent, SENDFILE_BYTES)
                sent_now = sock.sendfile(file, offset + sent, size)
            else:
                data = os.pread(file, min(count - sent, TLS_READ_BYTES), offset + sent)
                sock.sendall(data)
                sent_now = len(data)
            if not sent_now:
                raise OSError("the file was truncated while it was being sent")
            self._traffic.moved(path, offset + sent, sent_now)
            sent += sent_now
        return sent

    def _send_head(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        connection = self._connection
        url = f"{connection.prefix}{self._url.path}{path}"
        connection.putrequest(method, url, skip_accept_encoding=True)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in {**self._headers, **headers, **connection.extra_headers}.items():
            connection.putheader(name, value)
        connection.endheaders(body)

    @contextmanager
    def _guarded(self, check: Check, idle_s: float = QUICK_S) -> Iterator[None]:
        """Prepare the connection; close it after any error."""
        self._idle_s = idle_s
        try:
            self._reused = self._connection.sock is not None
            if self._reused:
                self._connection.open_socket.check = check  # not that of the call before
                if self._connection.open_socket.has_news():
                    self.close()  # the server closed it while it was idle
                    self._reused = False
            self._prepare_socket(check)
            yield
        except (OSError, HTTPException) as error:
            self.close()
            raise unavailable(error, self._url.geturl()) from error
        except BaseException:
            self.close()
            raise

    def _prepare_socket(self, check: Check) -> None:
        self._check = check
        sock = self._connection.open_socket
        sock.check, sock.idle_s = check, self._idle_s


def _head(response: HTTPResponse) -> ServerResponse:
    """The status and headers. Raises ConnectionResetError if a success may be incomplete.

    http.client accepts a head that ends early. A body without a length or chunks ends where the
    connection does, so a cut looks like its end.
    """
    headers = {name.lower(): value for name, value in response.getheaders()}
    if 200 <= response.status < 300:
        if not headers:
            raise ConnectionResetError("the answer was cut in its head")
        if response.length is None and not response.chunked:
            raise ConnectionResetError("the answer does not say how long it is")
    return ServerResponse(response.status, response.reason, headers)


def _read(response: HTTPResponse) -> ServerResponse:
    head = _head(response)
    body = response.read(MAX_ANSWER_BYTES)
    if len(body) == MAX_ANSWER_BYTES:
        raise HTTPException("an answer is larger than any call of the protocol has")
    if response.length and 200 <= head.status < 300:
        raise ConnectionResetError(f"the answer was cut {response.length} bytes before its end")
    response.close()
    return ServerResponse(head.status, head.reason, head.headers, body)


def unavailable(error: Exception, url: str = "") -> ServerUnavailable:
    """The transport's error in words that say what to do. May look at the server's certificate."""
    if problem := certificate_problem(error, url):
        return ServerUnavailable(problem)
    return ServerUnavailable(f"no answer from the server ({error or type(error).__name__})")
