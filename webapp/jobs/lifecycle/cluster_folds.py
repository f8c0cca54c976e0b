"""Folds of clusters: which updates an aggregating device folds, and how its result is checked.

fold = streaming aggregation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from fedcore.rounds.clusters import inputs_of_fold, leaf_updates
from fedcore.rounds.types import DELIVERED, AssignmentState, Task
from fedcore.topology import depth
from webapp.jobs.artefacts.update_format import shapes_of
from webapp.jobs.lifecycle.round_rows import assignment_key, to_round
from webapp.jobs.lifecycle.transitions import AssignmentRefused
from webapp.jobs.models import Assignment, Round
from webapp.jobs.round_records import ClusterFold

DELIVERED_PHASES = [phase.value for phase in DELIVERED]


class FoldUpdate(TypedDict):
    sha256: str | None
    size_bytes: int
    slot: int
    examples: int


class FoldInput(TypedDict):
    """Part of the answer to an acceptance: shapes of the model, and the updates to fold."""

    shapes: dict[str, list[int]]
    updates: list[FoldUpdate]


def fold_input_rows(assignment: Assignment) -> list[Assignment]:
    """The assignments whose updates a fold reads, by slot; [] for other tasks.

    They are fixed when the collection closes and do not change while a fold is open.
    """
    if assignment.task != Task.FOLD.value:
        return []
    state = to_round(assignment.round)
    return update_rows(assignment.round, inputs_of_fold(state, assignment.device.name))


def update_rows(row: Round, items: Sequence[AssignmentState]) -> list[Assignment]:
    """The rows of these assignments that have an update, by slot."""
    keys = {assignment_key(item) for item in items}
    rows = row.assignments.exclude(update_artefact=None).select_related("device", "update_artefact")
    return [
        item
        for item in rows.order_by("slot", "task")
        if (item.device.name, item.task, item.attempt) in keys
    ]


def count_leaf_updates(row: Round, assignments: Sequence[Assignment]) -> int:
    """Number of training devices' updates contained in the updates of these assignments."""
    keys = {(item.device.name, item.task, item.attempt) for item in assignments}
    state = to_round(row)
    return sum(
        len(leaf_updates(state, item)) for item in state.assignments if assignment_key(item) in keys
    )


def fold_summaries(row: Round) -> list[ClusterFold]:
    """One entry for each cluster that its device folded, by slot."""
    parents = {slot: head for head, children in row.clusters for slot in children}
    folds = row.assignments.filter(task=Task.FOLD.value, phase__in=DELIVERED_PHASES)
    summaries: list[ClusterFold] = []
    for fold in folds.select_related("round__job", "device", "update_artefact").order_by("slot"):
        inputs = fold_input_rows(fold)
        summaries.append(
            {
                "slot": fold.slot,
                "level": 1 + depth(parents, fold.slot),
                "slots": [item.slot for item in inputs],
                "examples": fold.examples,
                "bytes_in": sum(map(_size_bytes, inputs)),
                "bytes_up": _size_bytes(fold),
            }
        )
    return summaries


def fold_input(assignment: Assignment) -> FoldInput | None:
    """The input of a fold as its device gets it; None for other tasks."""
    if assignment.task != Task.FOLD.value:
        return None
    shapes = shapes_of(assignment.round.job_id, assignment.slot)
    return {
        "shapes": {name: list(shape) for name, shape in sorted(shapes.items())},
        "updates": [
            {
                "sha256": item.update_artefact_id,
                "size_bytes": _size_bytes(item),
                "slot": item.slot,
                "examples": item.examples,
            }
            for item in fold_input_rows(assignment)
        ],
    }


def check_fold_report(assignment: Assignment, examples: int) -> None:
    """Raises AssignmentRefused where a fold claims another weight than its inputs have."""
    if assignment.task != Task.FOLD.value:
        return
    expected = sum(item.examples for item in fold_input_rows(assignment))
    if examples != expected:
        raise AssignmentRefused(f"the cluster's updates have {expected} examples, not {examples}")


def reported_text(assignment: Assignment) -> str:
    """Event text of a reported fold."""
    inputs = fold_input_rows(assignment)
    names = ", ".join(item.device.name for item in inputs)
    bytes_in, bytes_up = sum(map(_size_bytes, inputs)), _size_bytes(assignment)
    if assignment.round.job.job_spec.method.family.keeps_weights_on_device:
        return f"distilled {names}: {bytes_in:,} bytes of logits received, {bytes_up:,} sent"
    return f"aggregated {names}: {bytes_in:,} bytes of updates became {bytes_up:,}"


def _size_bytes(assignment: Assignment) -> int:
    return assignment.update_artefact.size_bytes if assignment.update_artefact else 0
