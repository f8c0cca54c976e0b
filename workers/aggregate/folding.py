"""Fold the updates of one round into the next global model."""

from __future__ import annotations

import logging
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from fedcore.errors import EdgewiseError, FoldError, WireError
from fedcore.rounds import Aggregated, AggregationFailed, AssignmentPhase, RoundPhase, Task
from fedcore.strategy.fold import FoldReport, UpdateFile, fold_files
from fedcore.wire.frame import FrameReader, check_frame
from webapp.events import job_event
from webapp.jobs.artefacts import (
    ArtefactRefused,
    full_disk_refused,
    incoming_dir,
    local_file,
    store,
)
from webapp.jobs.models import Artefact, ArtefactKind, Assignment, Job, Level, Round
from webapp.jobs.transitions import lock_job
from workers.coordinator.shell import advance, apply

log = logging.getLogger(__name__)

# Headers and metadata may make an update larger than the model it changes, by this much.
FRAME_SLACK_BYTES = 65_536


@dataclass(frozen=True)
class _Result:
    report: FoldReport
    global_artefact: Artefact
    state_artefact: Artefact
    slots: list[int]


def fold_round(round_id: int) -> None:
    """Fold, store, tell the round. Doing it twice gives the same bytes and changes nothing."""
    row = Round.objects.select_related("job", "base_artefact", "state_artefact").get(pk=round_id)
    if row.phase != RoundPhase.AGGREGATING.value:
        return
    try:
        result = _fold(row)
    except ArtefactRefused as error:  # the disk is full: reconcile asks again
        job_event(row.job, f"round {row.number}: {error}", Level.ERROR)
        return
    except EdgewiseError as error:
        log.warning("round %s cannot be folded: %s", row, error)
        apply(round_id, AggregationFailed(time.time(), str(error)))
    else:
        _conclude(row, result)
    advance(row.job_id)


def _fold(row: Round) -> _Result:
    spec = row.job.job_spec
    previous = _state_before(row)
    assert row.base_artefact is not None
    with full_disk_refused(), ExitStack() as stack:
        base = stack.enter_context(local_file(row.base_artefact))
        state = stack.enter_context(local_file(previous)) if previous else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=incoming_dir())))
        updates = _checked_updates(row, base, stack)
        _check_quorum(row, len(updates))
        after, state_after = folder / "global.safetensors", folder / "state.safetensors"
        report = fold_files(spec, base, updates, state, after, state_after)
        kept = store(after, report.global_frame.sha256, ArtefactKind.GLOBAL, "aggregate")
        state_kept = store(
            state_after, report.state_frame.sha256, ArtefactKind.STRATEGY_STATE, "aggregate"
        )
    return _Result(report, kept, state_kept, [update.slot for update in updates])


def _checked_updates(row: Round, base: Path, stack: ExitStack) -> list[UpdateFile]:
    """The round's updates that are sound; each other one is refused with its reason."""
    expected = FrameReader(base).header.shapes
    assert row.base_artefact is not None
    meta = {
        "kind": "update",
        "job": str(row.job_id),
        "round": str(row.number),
        "base": row.base_artefact.sha256,
    }
    limit = row.base_artefact.size_bytes + FRAME_SLACK_BYTES
    sound = []
    for assignment in _reported(row):
        assert assignment.update_artefact is not None
        try:
            path = stack.enter_context(local_file(assignment.update_artefact))
            check_frame(path, expected, meta, limit)
        except WireError as error:
            _refuse(row, assignment, str(error))
            continue
        except FileNotFoundError:
            _refuse(row, assignment, "its bytes are no longer in the storage")
            continue
        sound.append(UpdateFile(path, float(assignment.examples), assignment.slot))
    return sound


def _reported(row: Round) -> list[Assignment]:
    rows = row.assignments.filter(task=Task.TRAIN.value, phase=AssignmentPhase.REPORTED.value)
    return list(rows.select_related("update_artefact", "device").order_by("slot"))


def _refuse(row: Round, assignment: Assignment, reason: str) -> None:
    with transaction.atomic():
        lock_job(row.job_id)
        reported = Assignment.objects.filter(pk=assignment.pk, phase=AssignmentPhase.REPORTED.value)
        if reported.update(phase=AssignmentPhase.REFUSED.value, reason=reason, retryable=False):
            text = f"{assignment.device.name}, round {row.number}: update refused: {reason}"
            job_event(row.job, text, Level.ERROR, assignment.device)


def _check_quorum(row: Round, sound: int) -> None:
    """Raise FoldError where the refusals left fewer updates than the round needs."""
    needed = int(row.policy["quorum"])
    if sound >= needed:
        return
    refused = row.assignments.filter(
        phase=AssignmentPhase.REFUSED.value, update_artefact__isnull=False
    ).select_related("device")
    reasons = "; ".join(f"{item.device.name}: {item.reason}" for item in refused)
    raise FoldError(
        f"{sound} of {sound + len(refused)} updates are sound where {needed} are needed: {reasons}"
    )


def _state_before(row: Round) -> Artefact | None:
    """The strategy's state after the newest earlier round that aggregated."""
    earlier = row.job.rounds.filter(number__lt=row.number, state_artefact__isnull=False)
    last = earlier.select_related("state_artefact").order_by("number", "attempt").last()
    return last.state_artefact if last else None


def _conclude(row: Round, result: _Result) -> None:
    now = timezone.now()
    with transaction.atomic():
        done = apply(
            row.pk,
            Aggregated(now.timestamp()),
            global_artefact=result.global_artefact,
            state_artefact=result.state_artefact,
            fold=_figures(result),
            aggregated_at=now,
        )
        if done:
            Job.objects.filter(pk=row.job_id).update(global_artefact=result.global_artefact)
            job_event(
                row.job,
                f"round {row.number}: folded {len(result.slots)} updates "
                f"in {result.report.seconds:.2f} s",
            )


def _figures(result: _Result) -> dict[str, object]:
    report = result.report
    return {
        "slots": result.slots,
        "weights": report.weights,
        "update_norms": report.update_norms,
        "aggregation_error": report.aggregation_error,
        "seconds": report.seconds,
        "bytes_read": report.bytes_read,
    }
