"""A federation in one process: real rows, real tensors, the calls of docs/reference/protocol.md.

``Federation.work_off`` carries the outbox's messages to the coordinator and the aggregation worker;
``Pi`` is a device that trains by adding a number to every weight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db.models import F
from django.http import HttpResponse
from django.utils import timezone

from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from tests import asgi
from tests.conftest import Enrolled, Outbox
from tests.fedcore.conftest import make_model
from webapp.common import task_queue, wake
from webapp.devices.models import Device
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Artefact, Assignment, Event, FoldShard, Job, Round, Watch

API = "/api/v1/device"
SCORES = {"loss": 2.0, "rouge1": 30.0, "rouge2": 10.0, "rougeL": 25.0, "seconds": 0.5}
TRAINED = {"loss": 1.5, "steps": 3, "seconds": 2.0, "mfu": 0.4, "phase_s": {"forward": 1.0}}
MAX_MESSAGES = 500
# Long enough that no slow machine reaches them: tests move the time themselves, with ``later``.
LEASE_S, DEADLINE_S, OFFLINE_AFTER_S = 600.0, 7200.0, 3600.0


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

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> HttpResponse:
        return self.enrolled.client.post(f"{API}/{path}", dict(body or {}), format="json")

    def act(self, assignment: str, verb: str, body: Mapping[str, Any] | None = None) -> Any:
        return self.post(f"assignments/{assignment}/{verb}/", body)

    def hello(self, boot_id: str = "", **changes: Any) -> HttpResponse:
        self.boot_id = boot_id or self.boot_id
        data = [{"name": "law", "domain": "law", "examples": self.examples, "columns": ["text"]}]
        body = {"boot_id": self.boot_id, "agent_version": "0.1.0", "datasets": data, **changes}
        return self.post("hello/", body)

    def presence(self, assignment: str | None = None, **changes: Any) -> HttpResponse:
        activity = {"assignment": assignment, "phase": "training", "step": 1, "steps_total": 3}
        body = {"boot_id": self.boot_id, "activity": activity, "samples": [], **changes}
        return self.post("measurements/", body)

    def offers(self) -> list[str]:
        """Assignments it was sent an offer for and has not worked off, oldest first."""
        mine = [
            json.loads(envelope["body"])["assignment"]
            for kind, device, envelope in self.outbox.devices
            if kind == "work" and device == self.enrolled.device.pk
        ]
        return [item for item in dict.fromkeys(mine) if item not in self.done]

    def cancels(self) -> dict[str, str]:
        bodies = [
            json.loads(envelope["body"])
            for kind, device, envelope in self.outbox.devices
            if kind == "cancel" and device == self.enrolled.device.pk
        ]
        return {body["assignment"]: body["reason"] for body in bodies}

    def accept(self, assignment: str) -> HttpResponse:
        return self.act(assignment, "accept", {"boot_id": self.boot_id})

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
        told = {"Authorization": f"Device {self.enrolled.api_token}", **headers}
        return asgi.call(method, path, told, body, **how).answer

    def update_for(self, work: Mapping[str, Any], **changes: Any) -> bytes:
        """The frame of an update to what ``work`` names; see ``update_frame``."""
        return update_frame(work, changes.pop("number", self.number), **changes)

    def report(self, assignment: str, content: bytes | None, **changes: Any) -> HttpResponse:
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


class Federation:
    """A site with its coordinator and aggregation worker, called instead of started."""

    def __init__(
        self, model: Path, outbox: Outbox, enrol: Callable[..., Enrolled], folder: Path
    ) -> None:
        self.model, self.outbox, self.folder = model, outbox, folder
        self._enrol = enrol
        self.pis: list[Pi] = []
        self.job: Job | None = None
        self.handled: list[str] = []

    def device(self, name: str, number: float = 0.5, examples: int = 40) -> Pi:
        pi = Pi(self._enrol(name, examples), self.outbox, number, examples=examples)
        pi.hello(f"boot-{name}")
        self.pis.append(pi)
        return pi

    def devices(self, *names: str) -> list[Pi]:
        return [self.device(name, number) for number, name in enumerate(names, start=1)]

    def spec(self, **changes: Any) -> JobSpec:
        values: dict[str, Any] = {
            "name": "a job",
            "model": {"name": str(self.model)},
            "adapter": {"rank": 2},
            "train": {"local_steps": 2},
            "participation": {"lease_s": LEASE_S, "deadline_s": DEADLINE_S},
            "rounds": 1,
        }
        for key, value in changes.items():
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        return parse_spec(values)

    def launch(self, **changes: Any) -> Job:
        """Launch a job and let the server do what it can."""
        self.job = services.create_job(self.spec(**changes), None)
        self.work_off()
        return self.job

    def started(self, **changes: Any) -> Job:
        """A job whose first round of training has just been offered."""
        job = self.launch(**changes)
        for pi in self.pis:
            pi.work()
        self.work_off()
        assert self.round(job).number == 1
        return job

    def work_off(self) -> None:
        """Carry every message to its worker, in order, until none is left."""
        from workers.aggregate import tasks as aggregate
        from workers.coordinator import tasks as coordinator

        do = {
            task_queue.ADVANCE: coordinator.advance_job,
            task_queue.RECONCILE: coordinator.reconcile_all,
            task_queue.INITIALISE: aggregate.initialise,
            task_queue.AGGREGATE: aggregate.aggregate,
            task_queue.FOLD_SHARD: aggregate.fold_shard,
            task_queue.EXPORT: aggregate.export,
        }
        for _ in range(MAX_MESSAGES):
            if not self.outbox.site:
                return
            name, args = self.outbox.site.pop(0)
            self.handled.append(name)
            do[name](*args)
        raise AssertionError("messages breed messages")

    def reconcile(self) -> None:
        from workers.coordinator import reconcile

        reconcile.run()
        self.work_off()

    def run(self, job: Job, limit: int = 60) -> Job:
        """Let everybody work until the job is over."""
        for _ in range(limit):
            self.work_off()
            job.refresh_from_db()
            if job.is_over:
                return job
            for pi in self.pis:
                pi.work()
            if not self.outbox.site:
                self.reconcile()
        raise AssertionError(f"the job is still {job.phase}: {job.reason}")

    @staticmethod
    def lose(*pis: Pi) -> None:
        """These devices have not been heard of for long."""
        ids = [pi.enrolled.device.pk for pi in pis]
        gone = timezone.now() - timedelta(seconds=2 * OFFLINE_AFTER_S)
        Device.objects.filter(pk__in=ids).update(last_seen_at=gone)

    @staticmethod
    def later(seconds: float) -> None:
        """Time passes: every moment in the database moves into the past, but for presence."""
        back = timedelta(seconds=seconds)
        moments = {
            Round: ("deadline_at", "aggregation_requested_at", "started_at", "ended_at"),
            Assignment: ("lease_until", "sent_at", "accepted_at"),
            FoldShard: ("claimed_at",),
            Job: ("queued_at", "initialise_requested_at", "started_at", "created_at"),
            Watch: ("back_at",),
        }
        for model, names in moments.items():
            model.objects.update(**{name: F(name) - back for name in names})

    @staticmethod
    def round(job: Job) -> Round:
        """The newest round."""
        newest = job.rounds.order_by("number", "attempt").last()
        assert newest is not None
        return newest

    @staticmethod
    def parts(job: Job, task: str = "train") -> dict[tuple[str, int], str]:
        """(device, attempt) -> phase in the newest round."""
        rows = Assignment.objects.filter(round=Federation.round(job), task=task)
        return {(row.device.name, row.attempt): row.phase for row in rows.select_related("device")}

    @staticmethod
    def log(job: Job) -> str:
        return "\n".join(
            Event.objects.filter(job=job).order_by("seq").values_list("text", flat=True)
        )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random FLAN-T5-shaped model in a folder."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def federation(
    transactional_db: None,
    tiny_model: Path,
    outbox: Outbox,
    enrolled_device: Callable[..., Enrolled],
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Federation:
    settings.OFFLINE_AFTER_S = OFFLINE_AFTER_S
    monkeypatch.setattr(wake, "sender", lambda groups: None)  # no page looks on
    return Federation(tiny_model, outbox, enrolled_device, tmp_path)


def phase_of(assignment: str) -> str:
    return Assignment.objects.get(pk=UUID(assignment)).phase
