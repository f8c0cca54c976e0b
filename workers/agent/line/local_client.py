"""Blocking calls from the training process over the socket of the agent's main process."""

from __future__ import annotations

import itertools
import os
import socket
import weakref
from pathlib import Path
from typing import Any

from msgspec import Raw

from fedcore.errors import ServerUnavailable
from fedcore.formats.line_messages import body_of
from workers.agent.http.socket import Check, no_check
from workers.agent.line.local_messages import (
    LIMIT_BYTES,
    REPLY,
    START_ANSWER,
    LocalKind,
    Reply,
    Request,
    StartAnswer,
    line_of,
)
from workers.agent.line.site_call import TICK_S, checked

CONNECT_S = 5.0

_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked process uses no socket of its parent, and must not keep it open."""
    for inherited in list(_open):
        inherited.close()


os.register_at_fork(after_in_child=_close_in_child)


def connect(path: Path) -> socket.socket:
    """A connection to the agent's main process. Raises OSError where that is gone."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_S)
    try:
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    _open.add(connection)
    return connection


class LineClient:
    """One call at a time. Connects when needed, and again after the connection was lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids = itertools.count(1)
        self._connection: socket.socket | None = None
        self._received = b""

    def start(self) -> StartAnswer:
        """What this training process needs to begin."""
        return START_ANSWER.decode(self._exchange(LocalKind.START, Raw(b"{}"), no_check).body)

    def call(self, kind: str, body: Any, check: Check = no_check) -> dict[str, Any]:
        """See ``Caller``."""
        reply = self._exchange(kind, body_of(body), check)
        return checked(reply.status, reply.body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._received = None, b""

    def _exchange(self, kind: str, body: Raw, check: Check) -> Reply:
        check()
        request = Request(kind, next(self._ids), body=body)
        try:
            if self._connection is None or self._connection.fileno() < 0:
                self.close()
                self._connection = connect(self._path)
            self._connection.sendall(line_of(request))
            self._connection.settimeout(TICK_S)
            return self._await_reply(self._connection, request.id, check)
        except OSError as error:
            self.close()
            raise ServerUnavailable(
                f"the agent's main process does not answer ({error})"
            ) from error

    def _await_reply(self, connection: socket.socket, number: int, check: Check) -> Reply:
        """The reply with this number; those of calls that were given up are dropped."""
        while True:
            line, end, rest = self._received.partition(b"\n")
            if end:
                self._received = rest
                reply = REPLY.decode(line)
                if reply.id == number:
                    return reply
                continue
            try:
                data = connection.recv(LIMIT_BYTES)
            except TimeoutError:
                check()
                continue
            if not data:
                raise ConnectionResetError("it has ended")
            self._received += data
