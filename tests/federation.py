"""A federation in one process: real rows, real tensors, the calls of docs/reference/protocol.md.

``Federation.work_off`` carries the outbox's messages to the coordinator and the aggregation worker;
``tests.device.Pi`` is one of its devices.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db.models import F
from django.utils import timezone

from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from tests.conftest import Enrolled, Outbox
from tests.device import Pi
from tests.fedcore.conftest import make_model
from webapp.common import task_queue, wake
from webapp.devices.models import Device
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Assignment, Event, FoldShard, Job, Round, Watch

MAX_MESSAGES = 500
# Long enough that no slow machine reaches them: tests move the time themselves, with ``later``.
LEASE_S, DEADLINE_S, OFFLINE_AFTER_S = 600.0, 7200.0, 3600.0


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
        last_seen = timezone.now() - timedelta(seconds=2 * OFFLINE_AFTER_S)
        Device.objects.filter(pk__in=ids).update(last_seen_at=last_seen)

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
