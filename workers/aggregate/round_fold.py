"""Fold the updates of one round into the next global model."""

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
from workers.aggregate.result import Result
from workers.coordinator.advance import advance, apply

log = logging.getLogger(__name__)


def fold_round(round_id: int) -> None:
    """Fold, store, tell the round. Doing it twice gives the same bytes and changes nothing."""
    row = Round.objects.select_related("job", "base_artefact", "state_artefact").get(pk=round_id)
    if row.phase != RoundPhase.AGGREGATING.value:
        shard_plan.forget(row)
        return
    with failing(row):
        result = FOLDS[row.job.job_spec.method.family.exchange](row)
        if result is None:  # shards of it are still folded, by other workers too
            return
        _conclude(row, result)
        shard_plan.forget(row)
        advance(row.job_id)


@contextmanager
def failing(row: Round) -> Iterator[None]:
    """What ends a fold ends its round, but for a full disk: then reconcile asks again."""
    try:
        yield
    except ArtefactRefused as error:
        job_event(row.job, f"round {row.number}: {error}", EventLevel.ERROR)
    except EdgewiseError as error:
        log.warning("round %s cannot be folded: %s", row, error)
        apply(row.pk, AggregationFailed(time.time(), str(error)))
        shard_plan.forget(row)
        advance(row.job_id)


def _fold(row: Round) -> Result | None:
    """None where the fold is shared out and not all shards are there."""
    with refuse_full_disk(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=incoming_dir())))
        after = NextFiles(*(folder / f"{name}.safetensors" for name in ("global", "state", "step")))
        while True:
            before, updates = opened(row, stack)
            try:
                fold = shard_plan.fold_of(row, before, updates, stack)
                if fold is None:
                    return None
                served = fold_and_serve(spec_of(row, updates), before, updates, after, fold)
            except UpdatesRefused as error:
                refuse_unsound(row, error)
                continue
            break
        report, step = served.report, served.step
        kept = _stored(after.model, report.global_frame, ArtefactKind.GLOBAL)
        state_kept = _stored(after.state, report.state_frame, ArtefactKind.STRATEGY_STATE)
        step_kept = _stored(after.step, step, ArtefactKind.STEP) if step and after.step else None
        told = fold_inputs.figures(row, fold_inputs.reported(row))
        folded = cluster_folds.fold_summaries(row) if row.clusters else []
    slots = [update.slot for update in updates]
    return Result(
        kept,
        state_kept,
        step_kept,
        slots,
        report.weights,
        report.update_norms,
        told,
        folded,
        # Of clusters' means it would say nothing of the devices' own factors.
        None if folded else report.aggregation_error,
        report.seconds,
        report.bytes_read,
    )


FOLDS: Mapping[Exchange, Callable[[Round], Result | None]] = {
    Exchange.UPDATES: _fold,
    Exchange.LOGITS: model_tree.relay,
}


def _stored(path: Path, frame: FrameInfo, kind: ArtefactKind) -> Artefact:
    return store(path, frame.sha256, kind, "aggregate")


def opened(row: Round, stack: ExitStack) -> tuple[ServerFiles, list[UpdateFile]]:
    """The files of a round's fold while the stack is open. Raises FoldError without quorum."""
    previous = state_before(row)
    assert row.base_artefact is not None
    base = stack.enter_context(local_file(row.base_artefact))
    state = stack.enter_context(local_file(previous)) if previous else None
    updates = _checked_updates(row, stack)
    _check_quorum(row, updates)
    return ServerFiles(base, state), updates


def spec_of(row: Round, updates: Sequence[UpdateFile]) -> JobSpec:
    """The job as this round was: a strategy may need the share of the devices that took part."""
    devices = row.job.participants.exclude(dataset="").count()
    return with_actual_participation(row.job.job_spec, fold_inputs.trained(row, updates), devices)


def _checked_updates(row: Round, stack: ExitStack) -> list[UpdateFile]:
    """The updates of the round that fit it; each other one is refused with its reason."""
    assert row.base_artefact is not None
    sound = []
    for key, assignment in fold_inputs.reported(row).items():
        assert assignment.update_artefact is not None
        meta = _meta(assignment)
        try:
            path = stack.enter_context(local_file(assignment.update_artefact))
            limit = update_format.max_update_bytes(assignment, row.base_artefact)
            check_header(path, update_format.shapes_of(row.job_id, assignment.slot), meta, limit)
        except WireError as error:
            _refuse(row, assignment, str(error))
            continue
        except FileNotFoundError:
            _refuse(row, assignment, "its bytes are no longer in the storage")
            continue
        sound.append(fold_inputs.update_file(row, assignment, key, path))
    return sound


def _meta(assignment: Assignment) -> dict[str, str]:
    """What an update must say of itself: its assignment's own round, which may be an older one."""
    started = assignment.round
    assert started.base_artefact is not None
    return {
        "kind": "update",
        "job": str(started.job_id),
        "round": str(started.number),
        "base": started.base_artefact.sha256,
        WIRE_KEY: str(update_format.chain_of(assignment)),
    }


def refuse_unsound(row: Round, error: UpdatesRefused) -> None:
    """Numbers are looked at only while they are folded: refuse, for the fold to be done again."""
    for key, assignment in fold_inputs.reported(row).items():
        if reason := error.reasons.get(key):
            _refuse(row, assignment, reason)


def _refuse(row: Round, assignment: Assignment, reason: str) -> None:
    with transaction.atomic():
        lock_job(row.job_id)
        reported = Assignment.objects.filter(pk=assignment.pk, phase=AssignmentPhase.REPORTED.value)
        if reported.update(phase=AssignmentPhase.REFUSED.value, reason=reason, retryable=False):
            text = f"{assignment.device.name}, round {row.number}: update refused: {reason}"
            job_event(row.job, text, EventLevel.ERROR, assignment.device)


def _check_quorum(row: Round, updates: Sequence[UpdateFile]) -> None:
    """Raise FoldError where the refusals left fewer updates than the round needs."""
    needed = int(row.policy["quorum"])
    sound = fold_inputs.trained(row, updates)
    if sound >= needed:
        return
    refused = (
        fold_inputs.of_round(row)
        .filter(phase=AssignmentPhase.REFUSED.value, update_artefact__isnull=False)
        .select_related("device")
    )
    reasons = "; ".join(f"{item.device.name}: {item.reason}" for item in refused)
    raise FoldError(
        f"{sound} of {sound + len(refused)} updates are sound where {needed} are needed: {reasons}"
    )


def _conclude(row: Round, result: Result) -> None:
    now = timezone.now()
    with transaction.atomic():
        done = apply(
            row.pk,
            Aggregated(now.timestamp()),
            global_artefact=result.global_artefact,
            state_artefact=result.state_artefact,
            step_artefact=result.step_artefact,
            fold=result.figures(),
            aggregated_at=now,
        )
        if done:
            Job.objects.filter(pk=row.job_id).update(global_artefact=result.global_artefact)
            job_event(
                row.job,
                f"round {row.number}: folded {len(result.slots)} updates in {result.seconds:.2f} s",
            )
