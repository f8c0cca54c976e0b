"""A device that floods its site: ``python -m benchmarks.orchestration.flooder CREDENTIAL``.

It sends frames at full speed, then messages that are none, then opens lines again and again, each
for PART_S, until SIGTERM. Then it writes what it did to CREDENTIAL.counts. It leaves the processor
to others, as a device would that is another machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from fedcore.errors import EdgewiseError
from fedcore.formats.line_bodies import MAX_SAMPLES, Hello
from fedcore.formats.line_messages import MAX_MESSAGE_BYTES, Message, body_of, encode
from workers.agent.line.opening import LineConnection, LineSite, line_site, open_line
from workers.agent.state import credentials
from workers.agent.state.files import read_json
from workers.agent.state.shared_state import IDLE

PART_S = 20.0
OPENERS = 8
NICENESS = 19
REFUSED_S = 0.02  # until the next attempt

Part = Callable[[LineSite, Counter[str]], Awaitable[None]]


async def full_speed(site: LineSite, counts: Counter[str]) -> None:
    """Valid frames, small and large ones, as fast as the site reads them."""
    numbers = itertools.count(1)
    async with _Opened(site, counts) as connection:
        for n in itertools.count(2):
            samples: list[dict[str, Any]] = []
            if n % 10 == 0:
                at, values = datetime.now(timezone.utc), {"loss": 1.0}
                samples = [
                    {"seq": next(numbers), "at": at, "values": values} for _ in range(MAX_SAMPLES)
                ]
            body = {"activity": IDLE, "samples": samples}
            await _send(connection, encode(Message(n=n, kind="measurements", body=body_of(body))))
            counts["frames"] += 1


async def malformed(site: LineSite, counts: Counter[str]) -> None:
    """What is no message of the protocol, or has no right to come now."""
    hello = encode(Message(n=2, kind="hello", body=body_of(Hello("another boot"))))
    wrong: list[bytes] = [
        b"not JSON",
        b'{"n": 900, "kind": "health", "body": {}}',
        b'{"n": 2, "kind": "unknown", "body": {"a": 1e999}}',
        b'{"n": 2, "kind": "report", "body": {"assignment": "\\u0000"}}',
        b"[" * 60_000,
        b"x" * (MAX_MESSAGE_BYTES * 5),
        hello,
    ]
    for data in wrong:
        async with _Opened(site, counts) as connection:
            for _ in range(50):
                await _send(connection, data)
                counts["malformed"] += 1


async def reconnects(site: LineSite, counts: Counter[str]) -> None:
    """Lines that are opened and dropped, with this credential and with none."""

    unknown = replace(site, address=replace(site.address, token="unknown"))

    async def opener(number: int) -> None:
        chosen = unknown if number % 4 == 3 else site
        async with _Opened(chosen, counts):
            counts["reconnects"] += 1

    await asyncio.gather(*(opener(number) for number in range(OPENERS)))


class _Opened:
    """An open line whose device has said hello; whatever ends it is counted, not raised."""

    def __init__(self, site: LineSite, counts: Counter[str]) -> None:
        self._site, self._counts = site, counts
        self._connection: LineConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LineConnection:
        self._connection = await open_line(self._site)
        hello = Message(n=1, kind="hello", body=body_of(Hello(uuid.uuid4().hex)))
        await _send(self._connection, encode(hello))
        self._reader = asyncio.create_task(_read(self._connection))
        return self._connection

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        assert self._connection is not None and self._reader is not None
        self._reader.cancel()
        self._connection.transport.abort()
        if isinstance(error, ConnectionClosed):
            self._counts[f"ended by {self._connection.close_code}"] += 1
            return True
        return False


async def _send(connection: LineConnection, data: bytes) -> None:
    await connection.send(data, text=True)


async def _read(connection: LineConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            await connection.recv(decode=False)


PARTS: tuple[Part, ...] = (full_speed, malformed, reconnects)


async def flood(site: LineSite, counts: Counter[str], part_s: float) -> None:
    for part in itertools.cycle(PARTS):
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_repeat(part, site, counts), part_s)


async def _repeat(part: Part, site: LineSite, counts: Counter[str]) -> None:
    while True:
        try:
            await part(site, counts)
        except (EdgewiseError, ConnectionClosed):
            counts["refused"] += 1
            await asyncio.sleep(REFUSED_S)


async def _live(path: Path, part_s: float) -> None:
    credential = credentials.parse(read_json(path))
    counts: Counter[str] = Counter()
    flooding = asyncio.create_task(
        flood(line_site(credential.server, credential.api_token), counts, part_s)
    )
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    began = time.monotonic()
    await over.wait()
    flooding.cancel()
    counts["seconds"] = round(time.monotonic() - began)
    Path(f"{path}.counts").write_text(json.dumps(counts))


if __name__ == "__main__":
    os.nice(NICENESS)
    asyncio.run(_live(Path(sys.argv[1]), float(sys.argv[2])))
