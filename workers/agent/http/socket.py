"""The bytes of one socket: counted as they leave and come, and slowed where a link is emulated."""

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
    """Nothing to look at while waiting."""


class CountingSocket:
    """Sends and receives what is possible now; TimeoutError after a tick in which nothing was.

    ``check`` is called while an emulated link is waited for, and may raise to give up.
    """

    def __init__(self, inner: socket.socket, traffic: Traffic, pace: LinkThrottle | None) -> None:
        self._socket = inner
        self._traffic = traffic
        self._pace = pace
        self._way = ""
        self._paid = 0  # bytes that the link carried and the socket has not taken yet
        self.check: Check = no_check
        inner.settimeout(TICK_S)

    def send(self, data: memoryview) -> int:
        sent = self._socket.send(data[: self._may_send(len(data))])
        self._went(sent)
        return sent

    def sendfile(self, file: int, offset: int, count: int) -> int:
        """Bytes of a file without a copy through this process."""
        try:
            sent = os.sendfile(self._socket.fileno(), file, offset, self._may_send(count))
        except BlockingIOError:  # it knows no timeout
            self._wait_to_write()
            raise TimeoutError from None
        self._went(sent)
        return sent

    def _may_send(self, count: int) -> int:
        if self._pace is None:
            return count
        if not self._paid:
            self._paid = self._pace.most(UP, count)
            self._pace.carry(UP, self._paid, self._turned(UP), self.check)
        return min(count, self._paid)

    def _went(self, sent: int) -> None:
        self._traffic.up += sent
        self._paid = max(0, self._paid - sent)

    def _wait_to_write(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_WRITE)
            selector.select(TICK_S)

    def recv_into(self, buffer: Any) -> int:
        """0 at the end."""
        if self._pace is None:
            got = self._socket.recv_into(buffer)
        else:
            got = self._socket.recv_into(buffer, self._pace.most(DOWN, len(buffer)))
            self._pace.carry(DOWN, got, self._turned(DOWN), self.check)
        self._traffic.down += got
        return got

    def _turned(self, way: str) -> bool:
        """Whether the other side spoke last: what comes now is on its way for a while."""
        turned, self._way = way != self._way, way
        return turned

    def has_news(self) -> bool:
        """Whether the other side said something, or has gone."""
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
