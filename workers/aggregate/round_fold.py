"""Folds the updates of one round into the next global model."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from fedcore.aggregation.fold_task import NextFiles, ServerFiles
from fedcore.aggregation.next_model import fold_and_serve
from fedcore.aggregation.strategies import with_actual_participation
from fedcore.aggregation.update_files import UpdateFile, UpdatesRefused
from fedcore.errors import EdgewiseError, FoldError, WireError
from fedcore.formats.update_header import WIRE_KEY
from fedcore.rounds.types import Aggregated, AggregationFailed, AssignmentPhase, RoundPhase
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import Exchange
from fedcore.wire.frame import FrameInfo, check_header
from webapp.jobs.artefacts import update_format
from webapp.jobs.artefacts.store import (
    ArtefactRefused,
    incoming_dir,
    local_file,
    refuse_full_disk,
    store,
)
from webapp.jobs.lifecycle import cluster_folds
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.round_rows import state_before
from webapp.jobs.lifecycle.transitions import lock_job
from webapp.jobs.models import Artefact, ArtefactKind, Assignment, EventLevel, Job, Round
from workers.aggregate import fold_inputs, model_tree, shard_plan
from workers.aggregate.result import FoldedRound
from workers.coordinator.advance import advance, apply

log = logging.getLogger(__name__)


def fold_round(round_id: int) -> None:
    """Fold, store, conclude the round. A second run gives the same bytes and changes nothing."""
    row = Round.objects.select_related("job", "base_artefact", "state_artefact").get(pk=round_id)
    if row.phase != RoundPhase.AGGREGATING.value:
        shard_plan.forget(row)
        return
    with failing_round(row):
        result = FOLDS[row.job.job_spec.method.family.exchange](row)
        if result is None:  # other workers are still folding shards
            return
        _conclude_round(row, result)
        shard_plan.forget(row)
        advance(row.job_id)


@contextmanager
def failing_round(row: Round) -> Iterator[None]:
    """Fail the round if the block raises; after a full disk, reconcile repeats the request."""
    try:
        yield
    except ArtefactRefused as error:
        job_event(row.job, f"round {row.number}: {error}", EventLevel.ERROR)
    except EdgewiseError as error:
        log.warning("cannot fold %s: %s", row, error)
        apply(row.pk, AggregationFailed(time.time(), str(error)))
        shard_plan.forget(row)
        advance(row.job_id)


def _fold_updates(row: Round) -> FoldedRound | None:
    """Fold and store the files. None while shards of the fold are missing."""
    with refuse_full_disk(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=incoming_dir())))
        after = NextFiles(*(folder / f"{name}.safetensors" for name in ("global", "state", "step")))
        while True:
            before, updates = open_files(row, stack)
            try:
                fold = shard_plan.fold_of(row, before, updates, stack)
                if fold is None:
                    return None
                served = fold_and_serve(spec_of(row, updates), before, updates, after, fold)
            except UpdatesRefused as error:
                refuse_invalid(row, error)
                continue
            break
        report, step = served.report, served.step
        model = _store_frame(after.model, report.global_frame, ArtefactKind.GLOBAL)
        state = _store_frame(after.state, report.state_frame, ArtefactKind.STRATEGY_STATE)
        step_file = None
        if step and after.step:
            step_file = _store_frame(after.step, step, ArtefactKind.STEP)
        cluster_summaries = cluster_folds.fold_summaries(row) if row.clusters else []
    return FoldedRound(
        model,
        state,
        step_file,
        slots=[update.slot for update in updates],
        weights=report.weights,
        update_norms=report.update_norms,
        updates=fold_inputs.staleness_report(row, fold_inputs.updates_of(row)),
        clusters=cluster_summaries,
        # Computed from cluster means, it would say nothing about the devices' own factors.
        aggregation_error=None if cluster_summaries else report.aggregation_error,
        seconds=report.seconds,
        bytes_read=report.bytes_read,
    )


FOLDS: Mapping[Exchange, Callable[[Round], FoldedRound | None]] = {
    Exchange.UPDATES: _fold_updates,
    Exchange.LOGITS: model_tree.relay_logits,
}


def _store_frame(path: Path, frame: FrameInfo, kind: ArtefactKind) -> Artefact:
    return store(path, frame.sha256, kind, "aggregate")


def open_files(row: Round, stack: ExitStack) -> tuple[ServerFiles, list[UpdateFile]]:
    """The files of a round's fold while the stack is open. Raises FoldError without a quorum."""
    previous = state_before(row)
    assert row.base_artefact is not None
    base = stack.enter_context(local_file(row.base_artefact))
    state = stack.enter_context(local_file(previous)) if previous else None
    updates = _valid_updates(row, stack)
    needed = int(row.policy["quorum"])
    valid = fold_inputs.count_devices(row, updates)
    if valid >= needed:
        return ServerFiles(base, state), updates
    refused = (
        fold_inputs.candidates(row)
        .filter(phase=AssignmentPhase.REFUSED.value, update_artefact__isnull=False)
        .select_related("device")
    )
    reasons = "; ".join(f"{item.device.name}: {item.reason}" for item in refused)
    total = valid + len(refused)
    raise FoldError(f"{valid} of {total} updates are valid, {needed} are needed: {reasons}")


def spec_of(row: Round, updates: Sequence[UpdateFile]) -> JobSpec:
    """The job with this round's participation: some strategies need the devices' share."""
    devices = row.job.participants.exclude(dataset="").count()
    return with_actual_participation(
        row.job.job_spec, fold_inputs.count_devices(row, updates), devices
    )


def _valid_updates(row: Round, stack: ExitStack) -> list[UpdateFile]:
    """The round's valid updates; the others are refused with a reason."""
    assert row.base_artefact is not None
    valid = []
    for key, assignment in fold_inputs.updates_of(row).items():
        assert assignment.update_artefact is not None
        started = assignment.round  # in a buffered job it may be an older one
        assert started.base_artefact is not None
        meta = {
            "kind": "update",
            "job": str(started.job_id),
            "round": str(started.number),
            "base": started.base_artefact.sha256,
            WIRE_KEY: str(update_format.chain_of(assignment)),
        }
        try:
            path = stack.enter_context(local_file(assignment.update_artefact))
            limit = update_format.max_update_bytes(assignment, row.base_artefact)
            check_header(path, update_format.shapes_of(row.job_id, assignment.slot), meta, limit)
        except WireError as error:
            _refuse(row, assignment, str(error))
            continue
        except FileNotFoundError:
            _refuse(row, assignment, "its bytes are missing in the storage")
            continue
        valid.append(fold_inputs.update_file(row, assignment, key, path))
    return valid


def refuse_invalid(row: Round, error: UpdatesRefused) -> None:
    """Refuse updates with invalid numbers, which only the fold reads; it is then repeated."""
    for key, assignment in fold_inputs.updates_of(row).items():
        if reason := error.reasons.get(key):
            _refuse(row, assignment, reason)


def _refuse(row: Round, assignment: Assignment, reason: str) -> None:
    with transaction.atomic():
        lock_job(row.job_id)
        reported = Assignment.objects.filter(pk=assignment.pk, phase=AssignmentPhase.REPORTED.value)
        if reported.update(phase=AssignmentPhase.REFUSED.value, reason=reason, retryable=False):
            text = f"{assignment.device.name}, round {row.number}: update refused: {reason}"
            job_event(row.job, text, EventLevel.ERROR, assignment.device)


def _conclude_round(row: Round, result: FoldedRound) -> None:
    now = timezone.now()
    with transaction.atomic():
        done = apply(
            row.pk,
            Aggregated(now.timestamp()),
            global_artefact=result.global_artefact,
            state_artefact=result.state_artefact,
            step_artefact=result.step_artefact,
            fold=result.fold_record(),
            aggregated_at=now,
        )
        if done:
            Job.objects.filter(pk=row.job_id).update(global_artefact=result.global_artefact)
            updates = len(result.slots)
            text = f"round {row.number}: folded {updates} updates in {result.seconds:.2f} s"
            job_event(row.job, text)
