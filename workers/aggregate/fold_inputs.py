"""The updates that a round folds: its own, or those in an asynchronous job's buffer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from django.db.models import QuerySet

from fedcore.aggregation.update_files import Key, UpdateFile
from fedcore.rounds.clusters import server_inputs
from fedcore.rounds.types import AssignmentPhase, Task
from webapp.common.units import number
from webapp.jobs.lifecycle import cluster_folds, device_overrides
from webapp.jobs.lifecycle.round_rows import is_buffered, to_round
from webapp.jobs.models import Assignment, Round
from webapp.jobs.round_records import BufferedUpdate


def candidates(row: Round) -> QuerySet[Assignment]:
    """Assignments whose updates the round folds, or would have folded."""
    train = Assignment.objects.filter(task=Task.TRAIN.value)
    if is_buffered(row):
        return train.filter(round__job_id=row.job_id, buffered_in=row.number)
    return train.filter(round=row)


def updates_of(row: Round) -> dict[Key, Assignment]:
    """The updates to fold, by their position in the sum: slot, then number.

    A cluster's update replaces those that its device has folded. In an asynchronous job a slot may
    have several; they are ordered by the model that they started from, not by arrival.
    """
    if row.clusters:
        topmost = cluster_folds.update_rows(row, server_inputs(to_round(row)))
        return {(item.slot, 0): item for item in topmost}
    rows = candidates(row).filter(phase=AssignmentPhase.REPORTED.value)
    rows = rows.select_related("update_artefact", "device", "round__base_artefact")
    ordered = list(rows.order_by("round__number", "round__attempt", "slot", "attempt"))
    if not is_buffered(row):
        return {(item.slot, 0): item for item in ordered}
    return {(item.slot, position): item for position, item in enumerate(ordered)}


def count_devices(row: Round, updates: Sequence[UpdateFile]) -> int:
    """How many devices' own updates these combine."""
    if not row.clusters:
        return len(updates)
    assignments = updates_of(row)
    return cluster_folds.count_leaf_updates(row, [assignments[update.key] for update in updates])


def staleness(row: Round, item: Assignment) -> int:
    """Versions between the model that an update started from and the one it changes."""
    return max(0, row.number - item.round.number)


def scale(row: Round, item: Assignment) -> float:
    """The factor of a stale update in the fold."""
    return float(row.job.job_spec.participation.discount(staleness(row, item)))


def update_file(row: Round, item: Assignment, key: Key, path: Path) -> UpdateFile:
    """An update as the fold's input, with its device's metrics."""
    metrics = item.metrics
    return UpdateFile(
        path,
        float(item.examples),
        *key,
        scale=scale(row, item),
        steps=int(number(metrics.get("steps")) or 0),
        loss_before=number(metrics.get("loss_before")),
        spec=device_overrides.spec_for(row.job, item.slot),
    )


def staleness_report(row: Round, folded: dict[Key, Assignment]) -> list[BufferedUpdate]:
    """Staleness of an asynchronous job's updates for ``Round.fold``, in the order of the sum."""
    if not is_buffered(row):
        return []
    return [
        {
            "slot": item.slot,
            "assignment": str(item.pk),
            "base": item.round.number,
            "attempt": item.attempt,
            "staleness": staleness(row, item),
            "discount": scale(row, item),
        }
        for _, item in sorted(folded.items(), key=lambda pair: pair[0][1])
    ]
