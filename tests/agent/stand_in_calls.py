"""The device calls of docs/reference/protocol.md, answered from memory.

Work is offered through a real broker, as the real server does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kombu import Connection

from fedcore.spec.job import JobSpec

DEVICE_ID = 7
PREFIX = f"dev.{DEVICE_ID}."
API_TOKEN = "device-token"
JOB_ID = str(uuid.uuid4())
_app = Celery("stand-in", set_as_current=False)
_app.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)


class Refusal(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass
class Offered:
    id: str
    task: str
    job_name: str
    weights: bytes
    dataset: str = "law"
    spec: JobSpec = field(default_factory=JobSpec)
    phase: str = "offered"
    update: bytes = b""
    part: bytes = b""
    report: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] = field(default_factory=dict)
    ended_at: float = 0.0


class DeviceCalls:
    """Everything that the server knows of one device; a call returns a status and a body."""

    def __init__(self, broker_url: str, admin_url: str) -> None:
        self.broker_url, self._admin_url = broker_url, admin_url
        self._key = Ed25519PrivateKey.generate()
        self.tokens = {"one-time"}
        self.revoked = False
        self.cut_downloads_at: list[int] = []
        self.cut_uploads_at: list[int] = []
        self.uploads: list[str] = []
        self.next_sample_seq = 1
        self.hellos: list[dict[str, Any]] = []
        self.also_in_hello: dict[str, Any] = {}
        self.samples: dict[int, dict[str, Any]] = {}
        self.activities: list[dict[str, Any]] = []
        self.offers: dict[str, Offered] = {}
        self.cancels: list[dict[str, str]] = []
        self.downloads: list[str] = []
        self.lock = threading.RLock()

    @property
    def public_key(self) -> str:
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def admission(self) -> dict[str, Any]:
        return {
            "device": {"id": DEVICE_ID, "name": "pi-kitchen", "role": "trainer"},
            "api_token": API_TOKEN,
            "broker": {"url": self.broker_url, "key_prefix": PREFIX, "queue": "work"},
            "signing_public_key": self.public_key,
        }

    def envelope(self, kind: str, assignment: str, **changes: Any) -> dict[str, str]:
        values = {
            "kind": kind,
            "device": DEVICE_ID,
            "assignment": assignment,
            "nonce": uuid.uuid4().hex,
            "expires_at": time.time() + 60,
            **changes,
        }
        body = json.dumps(values)
        return {
            "body": body,
            "signature": base64.b64encode(self._key.sign(body.encode())).decode(),
        }

    def offer(self, job_name: str, task: str = "train", **options: Any) -> Offered:
        """Make an assignment; ``job_name`` tells the stub trainer what to do."""
        weights = options.pop("weights", b"global weights " * 100)
        offered = Offered(str(uuid.uuid4()), task, job_name, weights, **options)
        with self.lock:
            self.offers[offered.id] = offered
        self.send(self.envelope("work", offered.id))
        return offered

    def _connection(self) -> Connection:
        return Connection(self._admin_url, transport_options={"global_keyprefix": PREFIX})

    def send(self, envelope: dict[str, str]) -> None:
        with self._connection() as connection:
            _app.send_task("edgewise.work", [envelope], queue="work", connection=connection)

    def cancel_by_broker(self, offered: Offered, reason: str) -> None:
        envelope = self.envelope("cancel", offered.id, reason=reason)
        with self._connection() as connection, connection.Producer(serializer="json") as producer:
            # Not ``broadcast``: it takes a producer of the app's pool, which knows no prefix.
            mailbox = _app.control.mailbox(connection)
            mailbox._publish("edgewise_cancel", {"envelope": envelope}, producer=producer)

    def cancel_by_answer(self, offered: Offered, reason: str) -> None:
        with self.lock:
            offered.phase = "expired"
            self.cancels.append({"assignment": offered.id, "reason": reason})

    # The calls of a device.

    def enrol(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["token"] not in self.tokens:
            raise Refusal(403, "the token is unknown, used or expired; make a new one")
        self.tokens.discard(body["token"])
        self.hellos.append(body)
        return 201, self.admission()

    def hello(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.hellos.append(body)
        return 200, {
            "device": {"id": DEVICE_ID},
            "next_sample_seq": self.next_sample_seq,
            "interval_s": 0.3,
            "cancel": [],
            **self.also_in_hello,
        }

    def measurements(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        for sample in body["samples"]:
            if "nonsense" in sample["values"]:
                raise Refusal(400, "unknown value 'nonsense'")
        assert len(body["samples"]) <= 500
        for sample in body["samples"]:
            stored = self.samples.setdefault(sample["seq"], sample)
            assert stored == sample, "a number was used for two samples"
        self.activities.append({**body["activity"], "heard_at": time.monotonic()})
        at_work = self.offers.get(body["activity"].get("assignment") or "")
        if at_work and at_work.phase == "accepted" and body["activity"]["phase"] == "training":
            at_work.phase = "training"  # a measurement says so; no other call does
        self.next_sample_seq = max([self.next_sample_seq, *(seq + 1 for seq in self.samples)])
        acked = body["samples"][-1]["seq"] if body["samples"] else self.next_sample_seq - 1
        return 200, {"acked_seq": acked, "interval_s": 0.3, "cancel": self.cancels}

    def unenrol(self) -> tuple[int, dict[str, Any]]:
        self.revoked = True
        return 204, {}

    def act(self, pk: str, verb: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        offered = self.offers.get(pk)
        if offered is None:
            raise Refusal(404, "no such assignment")
        if verb == "accept":
            self._move(offered, {"offered"}, "accepted")
            return 200, self.work(offered)
        if verb == "progress":
            self._move(offered, {"accepted", "training", "uploading"}, body["phase"])
        elif verb == "report":
            if offered.report and offered.report != body:
                raise Refusal(409, "answered already")
            self._move(offered, {"accepted", "training", "uploading", "reported"}, "reported")
            if body["update"]:
                assert hashlib.sha256(offered.update).hexdigest() == body["update"]
            offered.report = body
        else:
            self._move(offered, {"accepted", "training", "uploading"}, verb)
            offered.failure = body
        return 200, {}

    def _move(self, offered: Offered, expected: set[str], phase: str) -> None:
        if offered.phase not in expected:
            raise Refusal(409, f"the assignment is {offered.phase}")
        offered.phase = phase
        offered.ended_at = time.monotonic()

    def work(self, offered: Offered) -> dict[str, Any]:
        return {
            "assignment": offered.id,
            "job": JOB_ID,
            "job_name": offered.job_name,
            "round": 1,
            "task": offered.task,
            "attempt": 1,
            "slot": 0,
            "dataset": offered.dataset,
            "spec": offered.spec.to_dict(),
            "model_fingerprint": "",
            "global": {
                "sha256": hashlib.sha256(offered.weights).hexdigest(),
                "size_bytes": len(offered.weights),
            },
            "lease_s": 60.0,
            "deadline_at": None,
            "max_update_bytes": 1_000_000,
        }

    def artefact(self, sha256: str) -> bytes:
        for offered in self.offers.values():
            if hashlib.sha256(offered.weights).hexdigest() == sha256:
                return offered.weights
        raise Refusal(404, "no such artefact")

    def upload_of(self, pk: str) -> Offered:
        offered = self.offers[pk]
        if offered.phase not in ("accepted", "training", "uploading"):
            raise Refusal(409, f"the assignment is {offered.phase}")
        offered.phase = "uploading"
        return offered
