"""Bytes this process sent and received by HTTP: heads as sent, bodies as they pass by.

What TLS and TCP add is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx


class Traffic:
    """Running totals in bytes."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0


class CountedStream(httpx.SyncByteStream):
    def __init__(self, inner: Any, traffic: Traffic, upwards: bool) -> None:
        self._inner = inner
        self._traffic = traffic
        self._upwards = upwards

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            if self._upwards:
                self._traffic.up += len(chunk)
            else:
                self._traffic.down += len(chunk)
            yield chunk

    def close(self) -> None:
        self._inner.close()


class CountingTransport(httpx.BaseTransport):
    """Counts on the way through ``inner``."""

    def __init__(self, inner: httpx.BaseTransport, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._traffic.up += len(request.method) + len(request.url.raw_path) + _size(request.headers)
        request.stream = CountedStream(request.stream, self._traffic, upwards=True)
        response = self._inner.handle_request(request)
        self._traffic.down += _size(response.headers)
        response.stream = CountedStream(response.stream, self._traffic, upwards=False)
        return response

    def close(self) -> None:
        self._inner.close()


def _size(headers: httpx.Headers) -> int:
    """A head in HTTP/1.1: 'name: value' lines, start line's version, the empty line."""
    return sum(len(name) + len(value) + 4 for name, value in headers.raw) + 15
