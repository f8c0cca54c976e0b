"""Many devices in one event loop: ``python -m benchmarks.orchestration.virtual FOLDER``.

Each has its own credential and line (``workers.agent.line.device_line``), checks its offers and
does its assignments. Models and updates of at most SMALL_BYTES travel within messages; larger ones
are transferred by HTTP in a few threads, by the agent's own code. The devices keep no outbox and
measure nothing. ``credentials.jsonl`` names them; ``connected`` has the number of open lines.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import signal
import sys
import uuid
from base64 import b64decode
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from benchmarks.orchestration.echo import EXAMPLES, SCORES, TRAINED, EchoTrainer, update_pieces
from benchmarks.orchestration.large_transfers import LargeTransfers
from fedcore.errors import EdgewiseError
from fedcore.formats.frame_header import parse_header
from fedcore.formats.line_bodies import (
    SMALL_BYTES,
    DownBody,
    DownKind,
    Envelope,
    Hello,
    HelloAnswer,
    Interval,
    UpKind,
)
from fedcore.formats.line_messages import Message, body_of, read
from workers.agent.http.server_clock import Clock
from workers.agent.line.contract import LineState
from workers.agent.line.device_line import Line
from workers.agent.line.gatekeeper import Gatekeeper, SignedMessage
from workers.agent.line.opening import line_site
from workers.agent.line.site_call import checked
from workers.agent.state.credentials import DeviceCredential
from workers.agent.state.shared_state import IDLE
from workers.agent.state.site_key import SiteKey

log = logging.getLogger(__name__)

CREDENTIALS, CONNECTED = "credentials.jsonl", "connected"
DATASETS = [
    {
        "name": "echo",
        "domain": "echo",
        "examples": 40,
        "size_bytes": 2000,
        "columns": ["dialogue", "summary"],
    }
]
VERSION = "bench"
OPENINGS_PER_S = 200.0
THREADS = 8
COUNT_S = 0.5
INTERVAL = msgspec.json.Decoder(Interval)


class SeenNonces:
    """The nonces of one start; this process lives shorter than they do."""

    def __init__(self) -> None:
        self._nonces: set[str] = set()

    def has_nonce(self, nonce: str) -> bool:
        return nonce in self._nonces

    def see_nonce(self, nonce: str, expires_at: float, now: float) -> bool:
        del expires_at, now
        new = nonce not in self._nonces
        self._nonces.add(nonce)
        return new


class Fleet:
    """What all devices of the process share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trainer = EchoTrainer()
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="transfer")
        self.clock = Clock()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class VirtualDevice:
    """One device, and the handlers of its line."""

    def __init__(self, credential: DeviceCredential, fleet: Fleet) -> None:
        self.credential, self._fleet = credential, fleet
        hello = Hello(uuid.uuid4().hex, VERSION, Raw(b"{}"), body_of(DATASETS))
        key = SiteKey(credential.public_key)
        site = line_site(credential.server, credential.api_token, key=key)
        self.line = Line(site, body_of(hello), self)
        self._gatekeeper = Gatekeeper(credential.device_id, key, SeenNonces(), fleet.clock.now)
        self._interval_s = 1.0
        self._greeted = asyncio.Event()
        self._busy = asyncio.Lock()  # one assignment at a time
        self._queued: set[str] = set()
        self._large: LargeTransfers | None = None

    async def run(self) -> None:
        try:
            await asyncio.gather(self.line.run(), self._stay_present())
        except EdgewiseError as error:
            log.warning("%s ends: %s", self.credential.name, error)

    def greeted(self, answer: HelloAnswer) -> None:
        self._interval_s = answer.interval_s
        self._greeted.set()

    def connection_changed(self, line: LineState) -> None:
        if line.problem:
            log.info("%s: %s", self.credential.name, line.problem)

    def received(self, kind: DownKind, body: DownBody) -> None:
        if isinstance(body, Interval):
            self._interval_s = body.interval_s
        elif isinstance(body, Envelope) and kind is DownKind.OFFER:
            try:
                message = self._gatekeeper.open(msgspec.to_builtins(body), "work")
            except EdgewiseError as error:
                log.warning("%s: %s", self.credential.name, error)
                return
            if message.assignment not in self._queued:
                self._queued.add(message.assignment)
                self._fleet.spawn(self._work(message))

    async def _work(self, message: SignedMessage) -> None:
        try:
            async with self._busy:
                answer = await self._call(UpKind.ACCEPT, {"assignment": message.assignment})
                self._gatekeeper.close(message)
                values = msgspec.json.decode(answer.body)
                if values["task"] == "evaluate":
                    await self._report(message.assignment, None, b"", SCORES, answer)
                    return
                data = values["global"].get("data")
                update = update_within_report(values, b64decode(data)) if data is not None else b""
                if 0 < len(update) <= SMALL_BYTES:
                    digest = sha256(update).hexdigest()
                    await self._report(message.assignment, digest, update, TRAINED, answer)
                    return
                # By HTTP, in a thread of the pool.
                fleet, loop = self._fleet, asyncio.get_running_loop()
                if self._large is None:
                    self._large = LargeTransfers(self.credential, self.line, loop, fleet.folder)
                await loop.run_in_executor(fleet.pool, self._large.perform, values, fleet.trainer)
        except EdgewiseError as error:
            log.warning("%s: %s", self.credential.name, error)
        finally:
            self._queued.discard(message.assignment)

    async def _report(
        self,
        assignment: str,
        digest: str | None,
        update: bytes,
        metrics: dict[str, Any],
        answer: Message,
    ) -> None:
        body: dict[str, Any] = {"assignment": assignment, "update": digest, "examples": EXAMPLES}
        body |= {"metrics": metrics, "data": update or None}
        counts = {"bytes_up": len(bytes(body_of(body))), "bytes_down": len(bytes(answer.body))}
        await self._call(UpKind.REPORT, {**body, **counts})

    async def _call(self, kind: UpKind, body: Any) -> Message:
        """Raises EdgewiseError for a refusal."""
        message = await self.line.call(kind, body)
        if not message.succeeded:
            checked(message.status, message.body)
        return message

    async def _stay_present(self) -> None:
        """What a device at rest sends: its measurements, as often as the site asks for them."""
        await self._greeted.wait()
        await asyncio.sleep(random.random() * self._interval_s)
        while True:
            answer = await self._call(UpKind.MEASUREMENTS, {"activity": IDLE, "samples": []})
            if answer.re is not None:
                self._interval_s = read(answer.body, INTERVAL).interval_s
            await asyncio.sleep(self._interval_s)


def update_within_report(values: dict[str, Any], weights: bytes) -> bytes:
    """The update to ``weights``, with the metadata that ``AssignedWork.update_meta`` has."""
    meta = {
        "kind": "update",
        "job": values["job"],
        "round": str(values["round"]),
        "base": values["global"]["sha256"],
        "slot": str(values["slot"]),
    }
    header = parse_header(BytesIO(weights), len(weights), "the model")
    return b"".join(update_pieces(header, meta))


async def live(folder: Path) -> None:
    """Open the lines one after the other, and hold them until a signal comes."""
    fleet, over = Fleet(folder), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    lines = (folder / CREDENTIALS).read_text().splitlines()
    devices = [VirtualDevice(DeviceCredential(**json.loads(line)), fleet) for line in lines]
    counting = asyncio.create_task(_count(folder, devices))
    running = []
    for device in devices:
        running.append(asyncio.create_task(device.run()))
        await asyncio.sleep(1 / OPENINGS_PER_S)
    gc.collect()
    gc.freeze()  # thousands of lines are not looked through again
    await over.wait()
    for task in (counting, *running):
        task.cancel()
    fleet.pool.shutdown(wait=False, cancel_futures=True)


async def _count(folder: Path, devices: list[VirtualDevice]) -> None:
    """Write the number of open lines, whenever it has changed."""
    written = -1
    while True:
        connected = sum(device.line.is_connected for device in devices)
        if connected != written:
            part = folder / f".{CONNECTED}"
            part.write_text(str(connected))
            part.replace(folder / CONNECTED)
            written = connected
        await asyncio.sleep(COUNT_S)


if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    asyncio.run(live(Path(sys.argv[1])))
