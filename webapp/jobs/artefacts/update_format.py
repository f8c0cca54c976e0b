"""Wire format of updates and models: codec chain, error feedback, steps, header checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from django.db.models import F, Q, Window
from django.db.models.functions import RowNumber

from fedcore.errors import WireError
from fedcore.formats import update_header
from fedcore.formats.codec_chain import PLAIN, Chain, Shapes, parse
from fedcore.formats.codec_choice import Transfer, choose
from fedcore.formats.frame_header import FrameHeader, read_header
from fedcore.formats.update_header import check_update_header, max_frame_bytes
from fedcore.formats.wire_offer import AcceptedUpdate, WireOffer
from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import DELIVERED, RoundPhase, Task
from fedcore.spec.options.method import Exchange, stored_method
from fedcore.spec.overrides import tailored, trained_shapes
from webapp.common.units import number
from webapp.jobs.artefacts import logits_format
from webapp.jobs.artefacts.store import local_file
from webapp.jobs.models import Artefact, Assignment, Job, Participant, Round

MEASURED_TRANSFERS = 5  # newest updates of a device that its link speed is estimated from
OVER = [phase.value for phase in (JobPhase.COMPLETED, JobPhase.FAILED, JobPhase.CANCELLED)]
DELIVERED_PHASES = [phase.value for phase in DELIVERED]
# A plain frame's metadata may add this much to the model's own size.
SLACK_BYTES = 65_536


@dataclass(frozen=True)
class UpdateFormat:
    """Frames that devices of a method send in place of plain updates: kind, bounds and check."""

    kind: Callable[[Assignment], str]
    shapes: Callable[[Job], Shapes]
    max_bytes: Callable[[Assignment], int]
    check: Callable[[FrameHeader, Assignment], None]


FORMATS: Mapping[Exchange, UpdateFormat | None] = {
    Exchange.UPDATES: None,
    Exchange.LOGITS: UpdateFormat(
        logits_format.kind, logits_format.shapes, logits_format.max_bytes, logits_format.check
    ),
}  # by what devices send; None: updates under a codec


class StepReference(TypedDict):
    sha256: str
    size_bytes: int
    base: str | None


class ModelReference(TypedDict):
    """``step``: the difference from the model ``base``, where the device may send for that.

    ``data``: the model itself in base64, if it is small.
    """

    sha256: str
    size_bytes: int
    step: NotRequired[StepReference]
    data: NotRequired[str]


def _format(job: Job) -> UpdateFormat | None:
    return FORMATS[stored_method(job.spec).exchange]


def choose_chains(assignments: Sequence[Assignment]) -> None:
    """Set the codec chain of each assignment; all attempts of a round share the first one.

    The caller writes the rows.
    """
    for assignment in assignments:
        plain = _format(assignment.round.job) or assignment.task != Task.TRAIN.value
        if not plain and not assignment.wire:
            assignment.wire = str(_earlier_chain(assignment) or _choose_chain(assignment))


def offers(assignments: Sequence[Assignment]) -> dict[UUID, WireOffer]:
    """Codec and error feedback of accepted assignments, by id."""
    special = [item for item in assignments if _format(item.round.job)]
    specs = {
        item.pk: item.round.job.job_spec
        for item in assignments
        if item.task == Task.TRAIN.value and item not in special
    }
    fed_back = [
        item
        for item in assignments
        if (spec := specs.get(item.pk))
        and spec.wire.error_feedback
        and not spec.adapter.averaging.refactors
    ]
    device_ids = {item.device_id for item in (*fed_back, *special)}
    # A device deletes its error feedback of all jobs but its unfinished ones.
    unfinished: dict[int, set[str]] = {device_id: set() for device_id in device_ids}
    open_ = Participant.objects.filter(device__in=device_ids).exclude(job__phase__in=OVER)
    for device_id, job_id in open_.values_list("device_id", "job_id"):
        unfinished[device_id].add(str(job_id))
    jobs = {device_id: frozenset(ids) for device_id, ids in unfinished.items()}
    chains = [specs[item.pk].wire.chain for item in fed_back]
    # Without a chain the site chooses one by the device's link; it may be lossy.
    lossy = [chain is None or chain.lossy for chain in chains]
    accepted = _last_accepted(list(compress(fed_back, lossy)))
    by_id = {item.pk: WireOffer(chain_of(item)) for item in assignments}
    for item in special:
        by_id[item.pk] = WireOffer(jobs=jobs[item.device_id])
    for item in fed_back:
        by_id[item.pk] = WireOffer(chain_of(item), accepted.get(item.pk), jobs[item.device_id])
    return by_id


def chain_of(assignment: Assignment) -> Chain:
    """The codec chain of an assignment's update."""
    return parse(assignment.wire) if assignment.wire else PLAIN


def _earlier_chain(assignment: Assignment) -> str:
    """The chain of the first attempt at the same task; "" if this is the first."""
    row = assignment.round
    if assignment.attempt == 1 and row.attempt == 1:
        return ""
    earlier = Assignment.objects.filter(
        round__job=row.job_id, round__number=row.number, slot=assignment.slot, task=assignment.task
    ).exclude(wire="")
    chains = earlier.values_list("wire", flat=True)
    return chains.order_by("round__attempt", "attempt").first() or ""


def _choose_chain(assignment: Assignment) -> Chain:
    """The job's chain; with ``auto``, by how fast the device's last updates were sent."""
    job = assignment.round.job
    spec = job.job_spec
    wire = spec.wire
    if wire.chain is not None:
        return wire.chain
    if spec.deterministic:  # link measurements are not reproducible
        return Chain(packed=wire.compress)
    trainings = Assignment.objects.filter(
        device=assignment.device, task=Task.TRAIN.value, phase__in=DELIVERED_PHASES
    ).order_by("-ended_at")
    rows = trainings.values_list("update_artefact__size_bytes", "metrics")[:MEASURED_TRANSFERS]
    transfers = [
        Transfer(
            size or 0, number(metrics.get("upload_s")) or 0, number(metrics.get("seconds")) or 0
        )
        for size, metrics in rows
    ]
    if not transfers:
        return Chain(packed=wire.compress)
    return choose(shapes_of(job.pk, assignment.slot), transfers, wire.compress)


def _last_accepted(assignments: Sequence[Assignment]) -> dict[UUID, AcceptedUpdate]:
    """By assignment: its device's newest earlier update that was accepted, if it is lossy."""
    accepted: dict[UUID, AcceptedUpdate] = {}
    for row in {item.round_id: item.round for item in assignments}.values():
        mine = [item for item in assignments if item.round_id == row.pk]
        newest = _newest_updates(row, mine)
        for item in mine:
            last = newest.get(item.slot)
            if last is not None and chain_of(last).lossy:
                update = str(last.update_artefact_id)
                accepted[item.pk] = AcceptedUpdate(last.round.number, update, chain_of(last))
    return accepted


def _newest_updates(row: Round, assignments: Sequence[Assignment]) -> dict[int, Assignment]:
    """By slot: the newest update before these assignments of one round."""
    newest_first = [F("round__number").desc(), F("round__attempt").desc(), F("attempt").desc()]
    delivered = (
        Assignment.objects.filter(
            Q(round__number__lt=row.number) | Q(round=row), round__job=row.job_id,
            slot__in=[item.slot for item in assignments], task=Task.TRAIN.value,
            phase__in=DELIVERED_PHASES, update_artefact__isnull=False,
        )
        .exclude(round__phase=RoundPhase.FAILED.value)
        .exclude(pk__in=[item.pk for item in assignments])
        .annotate(place=Window(RowNumber(), partition_by=[F("slot")], order_by=newest_first))
    )  # fmt: skip
    return {item.slot: item for item in delivered.filter(place=1).select_related("round")}


@lru_cache(maxsize=256)
def overrides_by_slot(job: UUID) -> dict[int, dict[str, Any]]:
    """Each device's option overrides, cached for good: call it once the job's devices train."""
    return dict(Participant.objects.filter(job=job).values_list("slot", "tailoring"))


def shapes_of(job: UUID, slot: int) -> Shapes:
    """Names and shapes of the tensors that a device sends; the job must have its initial model."""
    return _shapes_of(job, json.dumps(overrides_by_slot(job).get(slot, {}), sort_keys=True))


@lru_cache(maxsize=256)
def _shapes_of(job: UUID, changes: str) -> Shapes:
    """Cached: the trained shapes of a job never change."""
    row = Job.objects.select_related("global_artefact").get(pk=job)
    assert row.global_artefact is not None
    if special := _format(row):
        return special.shapes(row)
    with local_file(row.global_artefact) as path:
        spec = tailored(row.job_spec, json.loads(changes))
        return trained_shapes(spec, read_header(path).shapes)


def max_update_bytes(assignment: Assignment, base: Artefact) -> int:
    """The largest update that is accepted; ``base``: the model that it was trained from."""
    if special := _format(assignment.round.job):
        return special.max_bytes(assignment)
    chain = chain_of(assignment)
    if chain.plain:
        return base.size_bytes + SLACK_BYTES
    return max_frame_bytes(chain, shapes_of(assignment.round.job_id, assignment.slot))


def step_to(job: Job, weights: Artefact) -> Round | None:
    """The round whose step leads to these weights, where the job sends steps and it is smaller."""
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


def model_of(job: Job, weights: Artefact) -> ModelReference:
    """``global`` in the answer to an acceptance: the model, and the step to it if there is one."""
    model: ModelReference = {"sha256": weights.sha256, "size_bytes": weights.size_bytes}
    row = step_to(job, weights)
    if row is not None and row.step_artefact is not None:
        step = row.step_artefact
        model["step"] = {
            "sha256": step.sha256,
            "size_bytes": step.size_bytes,
            "base": row.base_artefact_id,
        }
    return model


def check_update(header: FrameHeader, base: Artefact, assignment: Assignment) -> None:
    """Check names, sizes, codec and origin of an update from its header alone.

    The aggregation checks the numbers. Raises WireError with the reason.
    """
    special = _format(assignment.round.job)
    expected = {
        "kind": special.kind(assignment) if special else "update",
        "job": str(assignment.round.job_id),
        "round": str(assignment.round.number),
        "base": base.sha256,
    }
    for key, value in expected.items():
        if header.meta.get(key) != value:
            raise WireError(f"foreign update: {key} is {header.meta.get(key)!r}, not {value!r}")
    if special:
        special.check(header, assignment)
        return
    chain = update_header.chain_of(header)
    if chain != chain_of(assignment):
        raise WireError(f"the update was written as {chain}, not as {chain_of(assignment)}")
    check_update_header(header, shapes_of(assignment.round.job_id, assignment.slot), chain)
