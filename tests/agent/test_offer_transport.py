"""The kombu transport in a loop like that of Celery's worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub
from kombu.transport import TRANSPORT_ALIASES

from fedcore.formats.line_bodies import Envelope
from workers.agent.control.transport import QUEUE
from workers.agent.line.local_messages import LocalKind, Push, Request, line_of

TICKS = 10


class Worker:
    """The loop and one consumer; ``steps`` tells what happened in which order."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        TRANSPORT_ALIASES["edgewise"] = "workers.agent.control.transport:Transport"
        options = {"socket": str(path)}
        self.connection = Connection("edgewise://localhost/", transport_options=options)
        self.hub = Hub()
        self.steps: list[str] = []
        self.messages: list[Any] = []
        channel = self.connection.default_channel
        self.main, _ = self._listener.accept()
        consumer = Consumer(channel, [Queue(QUEUE)], callbacks=[self._take], accept=["json"])
        consumer.qos(prefetch_count=1)
        consumer.consume()
        for _ in range(TICKS):  # each a callable of its own, since the hub's are a set
            self.hub.on_tick.add(lambda: self.steps.append("tick"))
        poll = self.hub.poller.poll
        self.hub.poller.poll = lambda timeout: self.steps.append("poll") or poll(timeout)
        self.connection.transport.register_with_event_loop(self.connection.connection, self.hub)
        self._loop = self.hub.create_loop()

    def _take(self, _body: Any, message: Any) -> None:
        self.steps.append("message")
        self.messages.append(message)

    def push(self, tag: int) -> None:
        self.main.sendall(line_of(Push(tag, Envelope("{}", "signature"))))

    def turn_until(self, messages: int) -> None:
        for _ in range(20):
            if len(self.messages) == messages:
                return
            next(self._loop)
        pytest.fail(f"{len(self.messages)} messages came")

    def close(self) -> None:
        self.connection.close()
        self.hub.close()
        self.main.close()
        self._listener.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path / "main.sock")
    yield worker
    worker.close()


def test_pool_starts_an_offers_task_in_the_same_turn(worker: Worker) -> None:
    """The pool writes to its process in a tick, so that all ticks must follow the delivery."""
    worker.push(1)
    worker.turn_until(1)
    next(worker._loop)
    after = worker.steps[worker.steps.index("message") + 1 :]
    assert after[:TICKS] == ["tick"] * TICKS


def test_next_offer_is_delivered_once_the_first_is_finished(worker: Worker) -> None:
    worker.push(1)
    worker.turn_until(1)
    worker.messages[0].ack()
    received = worker.main.recv(4096)
    assert received == line_of(Request(LocalKind.OFFERS)) + line_of(
        Request(LocalKind.FINISHED, tag=1)
    )
    worker.push(2)
    worker.turn_until(2)
    assert worker.messages[1].delivery_tag == "2"
