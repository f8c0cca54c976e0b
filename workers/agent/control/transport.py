"""Celery's way to the offers: a kombu transport over the socket of the agent's main process.

``edgewise://`` has one queue and carries offers only. Nothing is polled, published or stored. The
main process hands out an offer again if this worker ends before the site has accepted it.
"""

from __future__ import annotations

import json
import os
import select
import uuid
from collections import deque
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ContentDisallowed
from kombu.transport import virtual

from workers.agent.line.local_client import connect
from workers.agent.line.local_messages import (
    LIMIT_BYTES,
    PUSH,
    LocalKind,
    Push,
    Request,
    line_of,
)

QUEUE = "work"
WORK = "edgewise.work"
EXIT_ORPHANED = 1


class OfferSocket:
    """The worker's connection to the agent's main process; the worker ends with it."""

    def __init__(self, path: Path) -> None:
        try:
            self._socket = connect(path)
        except OSError:
            os._exit(EXIT_ORPHANED)
        self._socket.setblocking(False)
        self._partial = b""
        self.offers: deque[Push] = deque()
        self.send(LocalKind.OFFERS)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, kind: LocalKind, tag: int = 0) -> None:
        try:
            self._socket.sendall(line_of(Request(kind.value, tag=tag)))
        except OSError:
            os._exit(EXIT_ORPHANED)

    def read(self) -> None:
        """Take what has arrived. The training process ends when this one does."""
        try:
            data = self._socket.recv(LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            os._exit(EXIT_ORPHANED)
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.offers.extend(map(PUSH.decode, lines))


class OfferMessage(virtual.Message):  # type: ignore[misc]
    """An offer as Celery takes it. Compressed or encoded content is refused."""

    def __init__(self, payload: dict[str, Any], channel: Any = None, **options: Any) -> None:
        headers = payload.get("headers") or {}
        if headers.get("compression") or payload.get("content-encoding") != "utf-8":
            raise ContentDisallowed("a device takes neither compressed nor encoded messages")
        super().__init__(payload, channel=channel, **options)


class Channel(virtual.Channel):  # type: ignore[misc]
    """One queue of offers."""

    Message = OfferMessage
    do_restore = False

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        del timeout
        offers: deque[Push] = self.connection.offer_socket.offers
        if queue != QUEUE or not offers:
            raise Empty
        return message_of(offers.popleft())

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        raise ContentDisallowed("nothing is published on a device")

    def _size(self, queue: str) -> int:
        return len(self.connection.offer_socket.offers)

    def _purge(self, queue: str) -> int:
        return 0

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        super().basic_ack(delivery_tag, multiple)
        self.connection.offer_socket.send(LocalKind.FINISHED, int(delivery_tag))

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        super().basic_reject(delivery_tag, requeue=False)
        kind = LocalKind.AGAIN if requeue else LocalKind.FINISHED
        self.connection.offer_socket.send(kind, int(delivery_tag))


class Transport(virtual.Transport):  # type: ignore[misc]
    """Wakes the worker's event loop when an offer arrives, and when one is finished."""

    Channel = Channel
    driver_type = driver_name = "edgewise"
    polling_interval: Any = None
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(["direct"]), heartbeats=False
    )

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self.offer_socket: OfferSocket | None = None

    def establish_connection(self) -> Any:
        client: Any = self.client
        self.offer_socket = OfferSocket(Path(client.transport_options["socket"]))
        return super().establish_connection()

    def close_connection(self, connection: Any) -> None:
        super().close_connection(connection)
        if self.offer_socket is not None:
            self.offer_socket.close()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Deliver as soon as something can be read, and what came before.

        Not in ``loop.on_tick``: its callbacks come in any order, and after the pool's own a task
        would wait for the loop's next turn, up to five seconds.
        """
        loop.add_reader(self._source().fileno(), self._read_and_deliver)
        loop.call_soon(self._deliver_all)

    def drain_events(self, connection: Any, timeout: Any = None) -> None:  # type: ignore[override]
        """For a worker without an event loop: deliver one offer, or raise TimeoutError."""
        source = self._source()
        while not self._deliver_one():
            if not select.select([source], [], [], timeout)[0]:
                raise TimeoutError
            source.read()

    def _source(self) -> OfferSocket:
        assert self.offer_socket is not None
        return self.offer_socket

    def _read_and_deliver(self) -> None:
        self._source().read()
        self._deliver_all()

    def _deliver_all(self) -> None:
        """The main process hands out the next offer when one is finished: none waits here."""
        while self._deliver_one():
            pass

    def _deliver_one(self) -> bool:
        """False where nothing waits, or where the worker takes no more now."""
        cycle: Any = self.cycle
        try:
            cycle.get(self._deliver, timeout=0)
        except Empty:
            return False
        return True


def message_of(push: Push) -> dict[str, Any]:
    """Celery's message (protocol 2) that runs the work task with an offer's envelope."""
    number = str(uuid.uuid4())
    envelope = {"body": push.offer.body, "signature": push.offer.signature}
    links = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return {
        "body": json.dumps([[envelope], {}, links]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": WORK, "id": number, "root_id": number},
        "properties": {
            "correlation_id": number,
            "delivery_mode": 1,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "delivery_tag": str(push.tag),
            "body_encoding": "utf-8",
        },
    }
