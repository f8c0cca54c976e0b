"""Devices that open real lines, for tests."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import websockets
from websockets.sync.client import ClientConnection, connect

from fedcore.formats.line_messages import Message, body_of, decode, encode, subprotocols
from tests.line.site import WEB, Site
from webapp.line.limits import OPENING_BURST_S, OPENINGS_PER_S

TIMEOUT_S = 20.0
# What ``Federation`` expects of a device.
DATASETS = [{"name": "law", "domain": "law", "examples": 40, "columns": ["text"]}]

# More than a device may do without a pause.
MANY_OPENINGS = 2 * int(OPENINGS_PER_S * OPENING_BURST_S)


class LineClient:
    """One line of a device. Frames of the site are acknowledged and gathered in ``frames``."""

    def __init__(self, site: Site, token: str, web: str = WEB, **options: Any) -> None:
        self._closing = ExitStack()
        connection = open_socket(site, f"Device {token}", web, **options)
        self.socket: ClientConnection = self._closing.enter_context(connection)
        self.frames: list[Message] = []
        self._sent = 0

    def __enter__(self) -> LineClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def send(self, kind: str, **body: Any) -> int:
        """Send a frame without waiting; returns its number."""
        self._sent += 1
        self.socket.send(encode(Message(n=self._sent, kind=kind, body=body_of(body))))
        return self._sent

    def answer(self, number: int) -> Message:
        """The answer or acknowledgement of a frame."""
        while True:
            message = self._receive()
            if message.re == number or (message.ack or 0) >= number:
                return message

    def call(self, kind: str, **body: Any) -> Message:
        return self.answer(self.send(kind, **body))

    def hello(self, boot_id: str = "boot-1", **body: Any) -> dict[str, Any]:
        message = self.call("hello", boot_id=boot_id, datasets=DATASETS, **body)
        assert message.status == 200, bytes(message.body)
        values: dict[str, Any] = json.loads(bytes(message.body))
        return values

    def frame(self, kind: str) -> Any:
        """The body of the next frame of this kind; envelopes are opened."""
        while not any(message.kind == kind for message in self.frames):
            self._receive()
        first = next(message for message in self.frames if message.kind == kind)
        self.frames.remove(first)
        body = json.loads(bytes(first.body))
        return json.loads(body["body"]) if "body" in body else body

    def close_code(self) -> int:
        """The code with which the site ends the line."""
        try:
            while True:
                self._receive()
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006

    def drop(self) -> None:
        """The connection breaks without a closing handshake."""
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> Message:
        message = decode(self.socket.recv(TIMEOUT_S))
        if message.n is not None:
            self.frames.append(message)
            self.socket.send(encode(Message(ack=message.n)))
        return message


def open_socket(
    site: Site, authorization: str | None, web: str = WEB, **options: Any
) -> AbstractContextManager[ClientConnection]:
    """Raises websockets.InvalidStatus where the site refuses the upgrade."""
    headers = {"Authorization": authorization} if authorization is not None else {}
    options.setdefault("subprotocols", subprotocols())
    return connect(
        site.url(web),
        additional_headers=headers,
        compression=None,
        open_timeout=TIMEOUT_S,
        proxy=None,
        **options,
    )


def wait_until(condition: Callable[[], object], seconds: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
