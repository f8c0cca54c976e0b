"""Frames of many devices that are applied together, and their outcomes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import Http404
from msgspec import Raw

from fedcore.formats.line_bodies import MeasurementsBody
from fedcore.rounds.types import Task
from webapp.devices.models import Device
from webapp.jobs.lifecycle.transitions import AssignmentRefused, lock_job
from webapp.jobs.models import Artefact, Assignment


@dataclass(frozen=True)
class Origin:
    """Where a frame came from: the line's epoch and the boot of the agent that said hello."""

    device_id: int
    epoch: int
    boot_id: str


@dataclass(frozen=True)
class Call:
    """A frame of the newest line of ``device``; ``body`` is one of UpBody."""

    device: Device
    origin: Origin
    body: Any


# The answer's body, None for an acknowledgement, or why the frame is refused.
Outcome = Raw | None | Exception


class LockedAssignments:
    """The assignments that calls name, with their jobs locked until the transaction ends."""

    def __init__(self, calls: Sequence[Call]) -> None:
        keys = {key for call in calls if (key := assignment_key(call.body))}
        jobs = Assignment.objects.filter(pk__in=keys).values_list("round__job_id", flat=True)
        self.jobs = sorted(set(jobs.order_by()))
        for job_id in self.jobs:
            lock_job(job_id)
        self._rows = assignments_of(keys)

    def of(self, call: Call) -> Assignment:
        """Raises Http404 for an assignment of another device."""
        row = self.find(call)
        if row is None:
            raise Http404
        return row

    def find(self, call: Call) -> Assignment | None:
        """The assignment that the call is about; None where it is no one's or another's."""
        key = assignment_key(call.body)
        row = self._rows.get(key) if key else None
        return row if row is not None and row.device_id == call.device.pk else None


def assignment_key(body: Any) -> UUID | None:
    """The assignment that a body is about. MeasurementsBody may be about none."""
    subject = body.activity if isinstance(body, MeasurementsBody) else body
    key: UUID | None = subject.assignment
    return key


def assignments_of(keys: Collection[UUID]) -> dict[UUID, Assignment]:
    """By id. Assignments of one round share its objects, so that a job is parsed once."""
    rounds: dict[int, Any] = {}
    jobs: dict[UUID, Any] = {}
    by_id: dict[UUID, Assignment] = {}
    rows = Assignment.objects.select_related(
        "round__job", "round__base_artefact", "round__global_artefact", "device"
    )
    for row in rows.filter(pk__in=keys):
        round_ = rounds.setdefault(row.round_id, row.round)
        round_.job = jobs.setdefault(round_.job_id, round_.job)
        row.round = round_
        by_id[row.pk] = row
    return by_id


def weights_of(assignment: Assignment) -> Artefact:
    """The model of an assignment: the round's base to train, its result to evaluate.

    Agglomerative devices evaluate their own model, so they get the base. Raises AssignmentRefused
    where the round has none yet.
    """
    round_ = assignment.round
    method = round_.job.job_spec.method.family
    evaluating = assignment.task == Task.EVALUATE.value and not method.keeps_weights_on_device
    weights = (round_.global_artefact if evaluating else None) or round_.base_artefact
    if weights is None:
        raise AssignmentRefused("the round has no model yet; wait for the next offer")
    return weights
