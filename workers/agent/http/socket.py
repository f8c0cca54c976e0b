"""A socket that counts its bytes, and is throttled where a link is emulated."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from typing import Any

from workers.agent.http.byte_counts import Traffic
from workers.agent.http.throttle import DOWN, UP, LinkThrottle

TICK_S = 0.1

Check = Callable[[], None]


def no_check() -> None:
    """A check that never gives up."""


class CountingSocket:
    """Sends and receives what is possible now; TimeoutError after a tick without any byte.

    ``check`` is called while waiting for an emulated link, and may raise to give up.
    """

    def __init__(
        self, inner: socket.socket, traffic: Traffic, throttle: LinkThrottle | None
    ) -> None:
        self._socket = inner
        self._traffic = traffic
        self._throttle = throttle
        self._direction = ""
        self._sendable = 0  # bytes that the link has carried and the socket has not yet accepted
        self.check: Check = no_check
        inner.settimeout(TICK_S)

    def send(self, data: memoryview) -> int:
        sent = self._socket.send(data[: self._bytes_allowed(len(data))])
        self._count_sent(sent)
        return sent

    def sendfile(self, file: int, offset: int, count: int) -> int:
        """Send bytes of a file without copying them through this process."""
        try:
            sent = os.sendfile(self._socket.fileno(), file, offset, self._bytes_allowed(count))
        except BlockingIOError:  # sendfile ignores the socket's timeout
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_WRITE)
                selector.select(TICK_S)
            raise TimeoutError from None
        self._count_sent(sent)
        return sent

    def _bytes_allowed(self, count: int) -> int:
        if self._throttle is None:
            return count
        if not self._sendable:
            self._sendable = self._throttle.chunk_size(UP, count)
            self._throttle.carry(UP, self._sendable, self._direction_changed(UP), self.check)
        return min(count, self._sendable)

    def _count_sent(self, sent: int) -> None:
        self._traffic.up += sent
        self._sendable = max(0, self._sendable - sent)

    def recv_into(self, buffer: Any) -> int:
        """Returns the number of bytes; 0 at the end of the stream."""
        if self._throttle is None:
            count = self._socket.recv_into(buffer)
        else:
            count = self._socket.recv_into(buffer, self._throttle.chunk_size(DOWN, len(buffer)))
            self._throttle.carry(DOWN, count, self._direction_changed(DOWN), self.check)
        self._traffic.down += count
        return count

    def _direction_changed(self, direction: str) -> bool:
        """Whether bytes last moved the other way: the next ones take the link's delay."""
        changed, self._direction = direction != self._direction, direction
        return changed

    def has_news(self) -> bool:
        """Whether the server has sent something, or closed the connection."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(TICK_S)
        return True

    def setsockopt(self, *values: Any) -> None:
        self._socket.setsockopt(*values)

    def close(self) -> None:
        self._socket.close()
