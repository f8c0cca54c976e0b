"""A small server with the calls of docs/reference/protocol.md, for the agent's tests.

It holds everything in memory, runs in threads, and can be stopped and started again on its port,
which serves HTTP and the devices' WebSocket as the real site's does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
import time
import uuid
from datetime import datetime, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedcore.formats.line_messages import MAX_MESSAGE_BYTES, REVOKED
from tests.agent.offered import Offered
from tests.agent.stand_in_http import API_TOKEN, StandInHttp
from tests.agent.stand_in_line import Refusal, StandInLine
from tests.agent.stand_in_polls import HELLO_AGAIN, StandInPolls

DEVICE_ID = 7
JOB_ID = str(uuid.uuid4())


class StandIn:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self._key = Ed25519PrivateKey.generate()
        self.tokens = {"one-time"}
        self._revoked = False
        self.away = False
        self.cut_downloads_at: list[int] = []
        self.cut_uploads_at: list[int] = []
        self.uploads: list[str] = []
        self.next_sample_seq = 1
        self.interval_s = 0.3
        self.hellos: list[dict[str, Any]] = []
        self.frames: list[tuple[str, dict[str, Any]]] = []  # all that came, in their order
        self.samples: dict[int, dict[str, Any]] = {}
        self.activities: list[dict[str, Any]] = []
        self.offers: dict[str, Offered] = {}
        self.downloads: list[str] = []
        self.fetched_assignments: list[str] = []
        self.cut_after: list[str] = []  # kinds of frames that count, and whose answer is lost
        # Answers to the next upgrades instead of a line: status, headers, body.
        self.refusals: list[tuple[int, dict[str, str], bytes]] = []
        self.upgrade_refusal: Any = None  # to all upgrades
        # What something on the way answers in the site's place: by method, then as above.
        self.foreign: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.upgrades: list[float] = []
        self.lines: list[StandInLine | StandInPolls] = []
        self.lock = threading.RLock()
        self._http: StandInHttp | None = None
        self.port = 0

    def start(self) -> None:
        self._http = StandInHttp(self.port, self)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._http is not None:
            self.away = True
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        for line in self.lines:
            line.cut()

    def come_back(self) -> None:
        self.away = False
        self.start()

    @property
    def line(self) -> StandInLine | StandInPolls:
        """The newest one."""
        return self.lines[-1]

    @property
    def revoked(self) -> bool:
        return self._revoked

    @revoked.setter
    def revoked(self, revoked: bool) -> None:
        self._revoked = revoked
        for line in self.lines:
            line.close(REVOKED, "this device's credential was revoked")

    @property
    def url(self) -> str:
        return f"{'https://localhost' if self.tls else 'http://127.0.0.1'}:{self.port}"

    @property
    def public_key(self) -> str:
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def admission(self) -> dict[str, Any]:
        return {
            "device": {"id": DEVICE_ID, "name": "pi-kitchen", "role": "trainer"},
            "api_token": API_TOKEN,
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

    def signature_of(self, body: bytes) -> bytes:
        return self._key.sign(body)

    def offer(self, job_name: str, task: str = "train", **options: Any) -> Offered:
        """Make an assignment; ``job_name`` tells the stub trainer what to do."""
        weights = options.pop("weights", b"global weights " * 100)
        offered = Offered(str(uuid.uuid4()), task, job_name, weights, **options)
        with self.lock:
            self.offers[offered.id] = offered
        self.send(self.envelope("work", offered.id))
        return offered

    def send(self, envelope: dict[str, Any]) -> None:
        """Offer at once, where a line is open; the hello of the next one gets all offers."""
        for line in self.lines[-1:]:
            line.push("offer", envelope)

    def cancel(self, offered: Offered, reason: str) -> None:
        self.line.push("cancel", self.envelope("cancel", offered.id, reason=reason))

    # What a device may ask for.

    def enrol(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["token"] not in self.tokens:
            raise Refusal(403, "the token is unknown, used or expired; make a new one")
        self.tokens.discard(body["token"])
        self.hellos.append(body)
        return 201, self.admission()

    def take_frame(self, kind: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """A frame of the device: its own answer, or None to acknowledge it."""
        with self.lock:
            self.frames.append((kind, body))
            if kind == "hello":
                return self.hello(body)
            if kind == "health":
                return None
            if kind == "measurements":
                self.measurements(body)
                return None
            answer = self.act(body["assignment"], kind, body)
            if len(json.dumps(answer)) > MAX_MESSAGE_BYTES:
                raise Refusal(413, "the description is larger than a message")
            return answer if kind == "accept" else None

    def serve_line(self, line: StandInLine) -> None:
        def handle(kind: str, body: dict[str, Any]) -> dict[str, Any] | None:
            answer = self.take_frame(kind, body)
            if kind in self.cut_after:
                self.cut_after.remove(kind)
                line.cut()
                raise ConnectionAbortedError
            if kind == "hello":
                threading.Timer(0.0, self._offer_again, [line]).start()
            return answer

        self.lines.append(line)
        line.open()
        line.serve(handle)

    def poll(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one poll; its first opens a line."""
        if not request["line"]:
            polls = StandInPolls(len(self.lines) + 1)
            self.lines.append(polls)
            answer = polls.poll(request, self.take_frame)
            self._offer_again(polls)
            return answer
        line = self.lines[-1]
        if not isinstance(line, StandInPolls) or line.number != request["line"]:
            raise Refusal(HELLO_AGAIN, "this device has a newer line; say hello again")
        return line.poll(request, self.take_frame)

    def _offer_again(self, line: StandInLine | StandInPolls) -> None:
        for offered in list(self.offers.values()):
            if offered.phase == "offered":
                line.push("offer", self.envelope("work", offered.id))

    def hello(self, body: dict[str, Any]) -> dict[str, Any]:
        self.hellos.append(body)
        return {
            "device_id": DEVICE_ID,
            "name": "pi-kitchen",
            "role": "trainer",
            "next_sample_seq": self.next_sample_seq,
            "interval_s": self.interval_s,
            "time": datetime.now(timezone.utc),
        }

    def measurements(self, body: dict[str, Any]) -> None:
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

    def unenrol(self) -> tuple[int, dict[str, Any]]:
        self.revoked = True
        return 204, {}

    def act(self, pk: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        offered = self.offers.get(pk)
        if offered is None:
            raise Refusal(404, "no such assignment")
        values = {key: item for key, item in body.items() if key != "assignment"}
        if verb == "accept":
            self._move(offered, {"offered", "accepted"}, "accepted")
            offered.accepted_at = time.monotonic()
            return self.work(offered)
        if verb == "progress":
            self._move(offered, {"accepted", "training", "uploading"}, body["phase"])
        elif verb == "report":
            if "data" in values:
                offered.update = base64.b64decode(values.pop("data"))
            if offered.report and offered.report != values:
                raise Refusal(409, "answered already")
            self._move(offered, {"accepted", "training", "uploading", "reported"}, "reported")
            if body["update"]:
                assert hashlib.sha256(offered.update).hexdigest() == body["update"]
            offered.report = values
        else:
            self._move(offered, {"accepted", "training", "uploading"}, verb)
            offered.failure = values
        return {}

    def _move(self, offered: Offered, expected: set[str], phase: str) -> None:
        if offered.phase not in expected:
            raise Refusal(409, f"the assignment is {offered.phase}")
        offered.phase = phase
        offered.ended_at = time.monotonic()

    def work(self, offered: Offered) -> dict[str, Any]:
        data = {"data": base64.b64encode(offered.weights).decode()}
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
                **(data if offered.within_answer else {}),
            },
            "lease_s": 60.0,
            "deadline_at": offered.deadline_at,
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
