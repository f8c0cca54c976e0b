"""What an assignment's update and model weigh on the wire: codec, error feedback, steps, checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db.models import Q

from fedcore.errors import WireError
from fedcore.formats.codec_chain import PLAIN, Chain, Shapes, parse
from fedcore.formats.codec_choice import Transfer, choose
from fedcore.formats.frame_header import FrameHeader, read_header
from fedcore.formats.update_header import chain_of as said_chain
from fedcore.formats.update_header import check_update_header, max_frame_bytes
from fedcore.formats.wire_offer import AcceptedUpdate, WireOffer
from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import DELIVERED, RoundPhase, Task
from fedcore.spec.options.distill import AGGLOMERATIVE
from fedcore.spec.overrides import tailored, trained_shapes
from webapp.common.units import number
from webapp.devices.models import Device
from webapp.jobs.artefacts import logits_format
from webapp.jobs.artefacts.store import local_file
from webapp.jobs.models import Artefact, Assignment, Job, Participant, Round

FORMER = 5  # transfers of a device that say how fast its link is
OVER = [phase.value for phase in (JobPhase.COMPLETED, JobPhase.FAILED, JobPhase.CANCELLED)]
TAKEN = [phase.value for phase in DELIVERED]
# A plain frame's metadata may add this much to the model's own size.
SLACK_BYTES = 65_536


@dataclass(frozen=True)
class Format:
    """What devices send in place of updates: how it is called, checked and bounded."""

    kind: Callable[[Assignment], str]
    shapes: Callable[[Job], Shapes]
    max_bytes: Callable[[Assignment], int]
    check: Callable[[FrameHeader, Assignment], None]


FORMATS: Mapping[str, Format] = {
    AGGLOMERATIVE: Format(
        logits_format.kind, logits_format.shapes, logits_format.max_bytes, logits_format.check
    ),
}  # by the name of the method


def _format(job: Job) -> Format | None:
    return FORMATS.get(job.spec.get("method", {}).get("name", ""))


def offer(assignment: Assignment) -> WireOffer:
    """What the device is told; the chain is fixed at the first answer of a round's attempts."""
    if _format(assignment.round.job):
        return WireOffer(jobs=_open_jobs(assignment.device))
    if assignment.task != Task.TRAIN.value:
        return WireOffer()
    if not assignment.wire:
        chosen = str(_former_attempt(assignment) or _chosen(assignment))
        if Assignment.objects.filter(pk=assignment.pk, wire="").update(wire=chosen):
            assignment.wire = chosen
        else:
            assignment.refresh_from_db(fields=["wire"])
    chain, wire = chain_of(assignment), assignment.round.job.job_spec.wire
    if not wire.error_feedback or assignment.round.job.job_spec.adapter.averaging.refactors:
        return WireOffer(chain)
    taken = _taken(assignment) if wire.chain is None or wire.chain.lossy else None
    return WireOffer(chain, taken, _open_jobs(assignment.device))


def chain_of(assignment: Assignment) -> Chain:
    """The chain an assignment's update is to be written with."""
    return parse(assignment.wire) if assignment.wire else PLAIN


def _former_attempt(assignment: Assignment) -> str:
    """The chain of an earlier attempt at the same piece of work, '' if this is the first."""
    row = assignment.round
    if assignment.attempt == 1 and row.attempt == 1:
        return ""
    earlier = Assignment.objects.filter(
        round__job=row.job_id, round__number=row.number, slot=assignment.slot, task=assignment.task
    ).exclude(wire="")
    return (
        earlier.values_list("wire", flat=True).order_by("round__attempt", "attempt").first() or ""
    )


def _chosen(assignment: Assignment) -> Chain:
    job = assignment.round.job
    spec = job.job_spec
    wire = spec.wire
    if wire.chain is not None:
        return wire.chain
    if spec.deterministic:  # what a link measures is not the same twice
        return Chain(packed=wire.compress)
    former = _former_transfers(assignment.device)
    if not former:
        return Chain(packed=wire.compress)
    return choose(shapes_of(job.pk, assignment.slot), former, wire.compress)


def _former_transfers(device: Device) -> list[Transfer]:
    """What the device's newest updates, of any job, took on their way."""
    rows = Assignment.objects.filter(device=device, task=Task.TRAIN.value, phase__in=TAKEN)
    newest = rows.order_by("-ended_at").values_list("update_artefact__size_bytes", "metrics")
    return [
        Transfer(size or 0, number(told.get("upload_s")) or 0, number(told.get("seconds")) or 0)
        for size, told in newest[:FORMER]
    ]


def _taken(assignment: Assignment) -> AcceptedUpdate | None:
    """The device's newest update before this one that is in the model, or waits to be."""
    row = assignment.round
    before = Q(round__number__lt=row.number) | Q(round=row, attempt__lt=assignment.attempt)
    found = (
        Assignment.objects.filter(
            before, round__job=row.job_id, slot=assignment.slot, task=Task.TRAIN.value,
            phase__in=TAKEN, update_artefact__isnull=False,
        )
        .exclude(round__phase=RoundPhase.FAILED.value)
        .order_by("-round__number", "-round__attempt", "-attempt")
        .select_related("round")
        .first()
    )  # fmt: skip
    if found is None or not chain_of(found).lossy:
        return None
    return AcceptedUpdate(found.round.number, str(found.update_artefact_id), chain_of(found))


def _open_jobs(device: Device) -> frozenset[str]:
    """The device's jobs that are not over; of all others it keeps nothing."""
    rows = Participant.objects.filter(device=device).exclude(job__phase__in=OVER)
    return frozenset(str(job) for job in rows.values_list("job_id", flat=True))


@lru_cache(maxsize=256)
def overrides_by_slot(job: UUID) -> dict[int, dict[str, Any]]:
    """Each device's option overrides, cached for good: call it once the job's devices train."""
    return dict(Participant.objects.filter(job=job).values_list("slot", "tailoring"))


def shapes_of(job: UUID, slot: int) -> Shapes:
    """Names and shapes of what a device of a job sends; the job's model must be there."""
    return _shapes_of(job, json.dumps(overrides_by_slot(job).get(slot, {}), sort_keys=True))


@lru_cache(maxsize=256)
def _shapes_of(job: UUID, changes: str) -> Shapes:
    """They never change: what a model gathers beside them is not sent."""
    row = Job.objects.select_related("global_artefact").get(pk=job)
    assert row.global_artefact is not None
    if own := _format(row):
        return own.shapes(row)
    with local_file(row.global_artefact) as path:
        spec = tailored(row.job_spec, json.loads(changes))
        return trained_shapes(spec, read_header(path).shapes)


def max_update_bytes(assignment: Assignment, base: Artefact) -> int:
    """The largest update that is taken; ``base`` is the model it was made from."""
    if own := _format(assignment.round.job):
        return own.max_bytes(assignment)
    chain = chain_of(assignment)
    if chain.plain:
        return base.size_bytes + SLACK_BYTES
    return max_frame_bytes(chain, shapes_of(assignment.round.job_id, assignment.slot))


def step_to(job: Job, weights: Artefact) -> Round | None:
    """The round whose step leads to these weights, where steps travel and it is the smaller."""
    if job.job_spec.wire.step_chain is None:
        return None
    rounds = Round.objects.filter(
        job=job,
        global_artefact=weights,
        step_artefact__isnull=False,
        step_artefact__removed_at=None,
    )
    row = rounds.select_related("step_artefact").order_by("-number").first()
    step = row.step_artefact if row else None
    return row if step and step.size_bytes < weights.size_bytes else None


def model_of(job: Job, weights: Artefact) -> dict[str, Any]:
    """``global`` of the answer to an acceptance: the model, and the step to it if there is one."""
    told: dict[str, Any] = {"sha256": weights.sha256, "size_bytes": weights.size_bytes}
    row = step_to(job, weights)
    if row is not None and row.step_artefact is not None:
        step = row.step_artefact
        told["step"] = {
            "sha256": step.sha256,
            "size_bytes": step.size_bytes,
            "base": row.base_artefact_id,
        }
    return told


def check_update(path: Path, base: Artefact, assignment: Assignment) -> None:
    """Names, sizes, codec and origin, from the header alone; the aggregation reads the numbers.

    Raises WireError with the reason.
    """
    header, own = read_header(path), _format(assignment.round.job)
    due = {
        "kind": own.kind(assignment) if own else "update",
        "job": str(assignment.round.job_id),
        "round": str(assignment.round.number),
        "base": base.sha256,
    }
    for key, value in due.items():
        if header.meta.get(key) != value:
            raise WireError(f"foreign update: {key} is {header.meta.get(key)!r}, not {value!r}")
    if own:
        own.check(header, assignment)
        return
    chain = said_chain(header)
    if chain != chain_of(assignment):
        raise WireError(f"the update was written as {chain}, not as {chain_of(assignment)}")
    check_update_header(header, shapes_of(assignment.round.job_id, assignment.slot), chain)
