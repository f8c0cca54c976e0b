"""Many devices in one process: ``python -m benchmarks.orchestration.virtual FOLDER``.

Each is enrolled, listens to its own queue with its own broker user, calls with its own token,
keeps its own weights and does assignments by the agent's own code
(``workers.agent.assignment.runner``), on a thread of its own. They keep no outbox and measure
nothing. ``credentials.jsonl`` names them.
"""

from __future__ import annotations

import base64
import json
import logging
import signal
import sys
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from benchmarks.orchestration.echo import EchoTrainer
from fedcore.errors import EdgewiseError
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.runner import AssignmentRunner, Dependencies
from workers.agent.control.gatekeeper import Gatekeeper
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.state.credentials import DeviceCredential
from workers.agent.state.shared_state import IDLE

log = logging.getLogger(__name__)

CREDENTIALS = "credentials.jsonl"
DATASETS = [
    {
        "name": "echo",
        "domain": "echo",
        "examples": 40,
        "size_bytes": 2000,
        "columns": ["dialogue", "summary"],
    }
]


class SilentRecorder:
    """The recorder of a device that measures nothing; it knows what the device does now."""

    def __init__(self, assignment: str) -> None:
        self.activity = {**IDLE, "assignment": assignment, "phase": "accepted"}

    def enter(self, phase: str) -> None:
        self.activity = {**self.activity, "phase": phase}

    def advance(self, step: int, steps_total: int) -> None:
        self.activity = {**self.activity, "step": step, "steps_total": steps_total}

    def record(self, values: Mapping[str, float]) -> None:
        del values


class VirtualDevice:
    """One device: a thread that works, and one that tells the server that it is there."""

    def __init__(self, known: DeviceCredential, folder: Path, trainer: EchoTrainer) -> None:
        self._known, self._trainer = known, trainer
        self._boot_id = uuid.uuid4().hex
        self._server = ServerApi(Address(known.server, known.api_token))
        self._presence = ServerApi(Address(known.server, known.api_token))
        self._cache = ArtefactCache(folder / known.name)
        self._updates = folder / "updates"
        self._seen: set[str] = set()
        self._gate = Gatekeeper(
            known.device_id, known.public_key, self._see, self._server.clock.now
        )
        self._over = threading.Event()
        self._recorder: SilentRecorder | None = None

    def _see(self, nonce: str, expires_at: float, now: float) -> bool:
        del expires_at, now
        new = nonce not in self._seen
        self._seen.add(nonce)
        return new

    def start(self) -> None:
        body = {"boot_id": self._boot_id, "agent_version": "bench", "profile": {}}
        self._presence.hello({**body, "datasets": DATASETS})
        for target in (self._work, self._stay_present):
            threading.Thread(target=target, daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def _work(self) -> None:
        broker = redis.Redis.from_url(self._known.broker_url)
        queue = f"{self._known.key_prefix}{self._known.queue}"
        while not self._over.is_set():
            message_bytes: Any = broker.brpop([queue], timeout=1)
            if message_bytes is None:
                continue
            try:
                message = json.loads(message_bytes[1])
                ((envelope,), _, _) = json.loads(base64.b64decode(message["body"]))
                assignment = self._gate.admit(envelope, "work").assignment
                work = AssignedWork.read(self._server.accept(assignment, self._boot_id))
                self._recorder = SilentRecorder(assignment)
                dependencies = Dependencies(
                    self._server,
                    self._cache,
                    self._trainer,
                    self._recorder,  # type: ignore[arg-type]
                    self._updates,
                    lambda: None,
                    self._over.is_set,
                )
                AssignmentRunner(work, dependencies).perform()
            except EdgewiseError as error:
                log.warning("%s: %s", self._known.name, error)
            finally:
                self._recorder = None

    def _stay_present(self) -> None:
        wait_s = 0.0
        while not self._over.wait(wait_s):
            recorder = self._recorder
            body = {
                "boot_id": self._boot_id,
                "sent_at": self._presence.clock.iso(),
                "activity": recorder.activity if recorder else IDLE,
                "samples": [],
            }
            try:
                wait_s = float(self._presence.measurements(body)["interval_s"])
            except EdgewiseError as error:
                log.warning("%s: %s", self._known.name, error)
                wait_s = 1.0


def main(folder: Path) -> int:
    (folder / "updates").mkdir(parents=True, exist_ok=True)
    threading.stack_size(512 * 1024)
    trainer = EchoTrainer()
    lines = (folder / CREDENTIALS).read_text().splitlines()
    fleet = [VirtualDevice(DeviceCredential(**json.loads(line)), folder, trainer) for line in lines]
    for device in fleet:
        device.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    for device in fleet:
        device.stop()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    sys.exit(main(Path(sys.argv[1])))
