"""The WebSocket of the stand-in's site: one per connected device, on the port of its HTTP."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from email.message import Message as Headers
from typing import Any

import msgspec
from websockets.datastructures import Headers as HandshakeHeaders
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from fedcore.formats.line_messages import Message, body_of, decode, encode, subprotocols

_quiet = logging.getLogger("stand-in")
_quiet.setLevel(logging.CRITICAL)


class Refusal(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


# A frame's kind and body; returns the body of its own answer, or None to acknowledge it.
Handle = Callable[[str, dict[str, Any]], dict[str, Any] | None]


class StandInLine:
    """Answers and acknowledges what ``handle`` makes of each frame."""

    def __init__(self, connection: socket.socket, path: str, headers: Headers) -> None:
        self._connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as servers do
        names = [Subprotocol(name) for name in subprotocols()]
        self._protocol = ServerProtocol(subprotocols=names, logger=_quiet)
        self._lock = threading.RLock()
        self._pushed = 0
        self.acknowledged = 0  # of the frames that were pushed
        self.pings = 0
        self.is_over = False
        self.is_deaf = False  # reads nothing and answers nothing, like a host that is gone
        self._request = Request(path, HandshakeHeaders(list(headers.items())))

    def open(self) -> None:
        with self._lock:
            self._protocol.receive_data(self._request.serialize())
            (request,) = self._protocol.events_received()
            assert isinstance(request, Request)
            self._protocol.send_response(self._protocol.accept(request))
            self._flush()

    def serve(self, handle: Handle) -> None:
        """Until the connection ends."""
        with contextlib.suppress(OSError):
            self._serve(handle)
        self.is_over = True

    def _serve(self, handle: Handle) -> None:
        while data := self._connection.recv(65_536):
            if self.is_deaf:
                continue
            with self._lock:
                self._protocol.receive_data(data)
                events = self._protocol.events_received()
                self._flush()
            for event in events:
                if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                    self._process(decode(bytes(event.data)), handle)

    def _process(self, message: Message, handle: Handle) -> None:
        if message.ack is not None:
            self.acknowledged = message.ack
        if message.n is None:
            return
        try:
            answer = handle(message.kind, msgspec.json.decode(message.body))
        except Refusal as refusal:
            body = body_of({"detail": str(refusal)})
            self.send(Message(re=message.n, status=refusal.status, body=body))
            return
        if answer is None:
            self.send(Message(ack=message.n))
        else:
            self.send(Message(re=message.n, body=body_of(answer)))

    def push(self, kind: str, body: Any) -> int:
        """Send a frame of the site; returns its number."""
        with self._lock:
            self._pushed += 1
            self.send(Message(n=self._pushed, kind=kind, body=body_of(body)))
            return self._pushed

    def send(self, message: Message) -> None:
        self.send_text(encode(message))

    def send_text(self, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._protocol.send_text(data)
            self._flush()

    def ping(self) -> None:
        with self._lock:
            self._protocol.send_ping(str(time.monotonic()).encode())
            self._flush()

    def close(self, code: int, reason: str = "") -> None:
        with self._lock, contextlib.suppress(OSError):
            self._protocol.send_close(code, reason)
            self._flush()

    def cut(self) -> None:
        """End the TCP connection without a word of WebSocket."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._connection.sendall(data)
            else:
                self._connection.shutdown(socket.SHUT_WR)
