"""A device of a federation in one process; it trains by adding a number to every weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpResponse
from msgspec import Raw

from fedcore.formats.line_messages import Message, decode, encode
from tests import asgi
from tests.conftest import Enrolled, Outbox
from webapp.devices.models import Device
from webapp.jobs.models import Artefact
from webapp.line.calls import Origin
from webapp.line.closing import LineClosed
from webapp.line.frames import apply_frames, refusal
from webapp.line.polling import STATUS_OF

API = "/api/v1/device"
SCORES = {"loss": 2.0, "rouge1": 30.0, "rouge2": 10.0, "rougeL": 25.0, "seconds": 0.5}
TRAINED = {"loss": 1.5, "steps": 3, "seconds": 2.0, "mfu": 0.4, "phase_s": {"forward": 1.0}}


@dataclass(frozen=True)
class FrameAnswer:
    """The site's answer to a frame, read like an HTTP response."""

    message: Message

    @property
    def status_code(self) -> int:
        return self.message.status

    @property
    def content(self) -> bytes:
        return bytes(self.message.body)

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Pi:
    """One device. ``number`` is what its training adds to each weight."""

    enrolled: Enrolled
    outbox: Outbox
    number: float = 0.5
    boot_id: str = "boot-1"
    examples: int = 40
    seconds: float = 2.0
    done: set[str] = field(default_factory=set)

    @property
    def device(self) -> Device:
        return Device.objects.get(pk=self.enrolled.device.pk)

    @property
    def name(self) -> str:
        return self.enrolled.device.name

    def frame(self, kind: str, body: Mapping[str, Any] | bytes) -> FrameAnswer:
        """Send a frame on the device's newest line, without a socket; bytes go out as they are.

        A frame that ends the line is answered as a poll with it would be.
        """
        device = self.device
        origin = Origin(device.pk, device.line_epoch, self.boot_id)
        raw = Raw(body if isinstance(body, bytes) else json.dumps(dict(body)).encode())
        data = encode(Message(n=1, kind=kind, body=raw))
        (answer,) = apply_frames([(origin, decode(data))])
        if isinstance(answer, LineClosed):
            answer = refusal(1, STATUS_OF.get(answer.code, 409), str(answer))
        return FrameAnswer(answer)

    def act(self, assignment: str, verb: str, body: Mapping[str, Any] | None = None) -> FrameAnswer:
        return self.frame(verb, {"assignment": assignment, **(body or {})})

    def hello(self, boot_id: str = "", **changes: Any) -> FrameAnswer:
        self.boot_id = boot_id or self.boot_id
        data = [{"name": "law", "domain": "law", "examples": self.examples, "columns": ["text"]}]
        body = {"boot_id": self.boot_id, "agent_version": "0.1.0", "datasets": data, **changes}
        return self.frame("hello", body)

    def presence(self, assignment: str | None = None, **changes: Any) -> FrameAnswer:
        activity = {"assignment": assignment, "phase": "training", "step": 1, "steps_total": 3}
        return self.frame("measurements", {"activity": activity, "samples": [], **changes})

    def offers(self) -> list[str]:
        """Assignments it was sent an offer for and has not worked off, oldest first."""
        mine = [
            json.loads(envelope["body"])["assignment"]
            for kind, device, envelope in self.outbox.devices
            if kind == "offer" and device == self.enrolled.device.pk
        ]
        return [item for item in dict.fromkeys(mine) if item not in self.done]

    def cancels(self) -> dict[str, str]:
        bodies = [
            json.loads(envelope["body"])
            for kind, device, envelope in self.outbox.devices
            if kind == "cancel" and device == self.enrolled.device.pk
        ]
        return {body["assignment"]: body["reason"] for body in bodies}

    def accept(self, assignment: str) -> FrameAnswer:
        return self.act(assignment, "accept")

    def download(self, sha256: str, **headers: str) -> HttpResponse:
        return self.enrolled.client.get(f"{API}/artefacts/{sha256}/", headers=headers)

    def upload(self, assignment: str, content: bytes, sha256: str = "", **how: Any) -> HttpResponse:
        """Send an update, or ``content[offset:]`` of it, with one PATCH; see ``patch``."""
        offset = how.get("offset", 0)
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(len(content) - offset),
            "Upload-Offset": str(offset),
            "Upload-Length": str(len(content)),
            **how.get("headers", {}),
        }
        return self.patch(assignment, sha256 or digest_of(content), content[offset:], headers)

    def patch(
        self, assignment: str, sha256: str, body: Any, headers: Mapping[str, str], **how: Any
    ) -> HttpResponse:
        return self._call("PATCH", assignment, sha256, headers, body, **how)

    def there(self, assignment: str, sha256: str) -> HttpResponse:
        """Ask how much of an update the server has."""
        return self._call("HEAD", assignment, sha256, {}, b"")

    def _call(
        self,
        method: str,
        assignment: str,
        sha256: str,
        headers: Mapping[str, str],
        body: Any,
        **how: Any,
    ) -> HttpResponse:
        path = f"{API}/assignments/{assignment}/update/{sha256}/"
        request_headers = {"Authorization": f"Device {self.enrolled.api_token}", **headers}
        return asgi.call(method, path, request_headers, body, **how).answer

    def update_for(self, work: Mapping[str, Any], **changes: Any) -> bytes:
        """The frame of an update to what ``work`` names; see ``update_frame``."""
        return update_frame(work, changes.pop("number", self.number), **changes)

    def report(self, assignment: str, content: bytes | None, **changes: Any) -> FrameAnswer:
        update = digest_of(content) if content is not None else None
        metrics = (
            {**TRAINED, "seconds": self.seconds}
            if content is not None
            else {**SCORES, "examples": 6}
        )
        examples = self.examples if content is not None else 6
        body = {"update": update, "examples": examples, "metrics": metrics, **changes}
        return self.act(assignment, "report", body)

    def take(self) -> dict[str, Any]:
        """Accept the newest offer."""
        answer = self.accept(self.offers()[-1])
        assert answer.status_code == 200, answer.content
        return answer.json()

    def work(self) -> list[str]:
        """Do everything that is offered; returns the tasks done."""
        tasks = []
        for assignment in self.offers():
            self.done.add(assignment)
            answer = self.accept(assignment)
            if answer.status_code != 200:
                continue
            self.finish(answer.json())
            tasks.append(answer.json()["task"])
        return tasks

    def finish(self, work: Mapping[str, Any]) -> None:
        """Answer an accepted assignment, by the whole path of an update."""
        assignment = work["assignment"]
        assert self.act(assignment, "progress", {"phase": "training"}).status_code == 200
        self.answer(work)

    def answer(self, work: Mapping[str, Any]) -> None:
        """The last steps of ``finish``."""
        assignment, content = work["assignment"], None
        if work["task"] == "train":
            content = self.update_for(work)
            answer = self.upload(assignment, content)
            assert answer.status_code == 204, answer.content
        answer = self.report(assignment, content)
        assert answer.status_code == 200, answer.content


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def update_frame(work: Mapping[str, Any], number: float, **changes: Any) -> bytes:
    """An update that adds ``number`` to every weight.

    ``meta`` overrides metadata, ``mend(tensors)`` changes the tensors before they are written.
    """
    import torch
    from safetensors.torch import save

    tensors = {
        name: torch.full_like(tensor, number)
        for name, tensor in weights(work["global"]["sha256"]).items()
    }
    meta = {
        "kind": "update",
        "job": work["job"],
        "round": str(work["round"]),
        "base": work["global"]["sha256"],
    }
    changes.get("mend", lambda _: None)(tensors)
    return save(tensors, {**meta, **changes.get("meta", {})})


def weights(sha256: str) -> dict[str, Any]:
    """The tensors of a stored artefact."""
    from safetensors.torch import load

    from webapp.jobs.artefacts.store import open_artefact

    with open_artefact(Artefact.objects.get(pk=sha256)) as source:
        return load(source.read())
