"""Which devices of a job fold the updates of others: checked, fixed, and what each is to fold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.rounds.clusters import inputs_of_fold, leaf_updates
from fedcore.rounds.types import DELIVERED, AssignmentState, Task
from fedcore.spec.job import JobSpec
from fedcore.spec.rules.distill import is_agglomerative, training_devices
from fedcore.topology import (
    Cluster,
    Roles,
    clusters,
    depth,
    device_faults,
    parents_of,
    shared_out,
    star_faults,
)
from webapp.devices.models import Device, DeviceRole
from webapp.jobs.artefacts.update_format import shapes_of
from webapp.jobs.lifecycle.round_rows import to_round
from webapp.jobs.lifecycle.transitions import AssignmentRefused
from webapp.jobs.models import Assignment, Job, Participant, Round

FOLDS = (DeviceRole.AGGREGATOR, DeviceRole.BOTH)
DELIVERED_WORDS = [phase.value for phase in DELIVERED]
TRAINS = (DeviceRole.TRAINER, DeviceRole.BOTH)


def faults(spec: JobSpec) -> list[Fault]:
    """Every fault of a job's tree on the devices that are enrolled now."""
    if not spec.tree.grown:
        return []
    rows = list(Device.objects.filter(revoked_at=None).values_list("name", "role"))
    chosen = set(training_devices(spec))
    training = {name for name, role in rows if role in TRAINS and (not chosen or name in chosen)}
    roles = Roles(training, {name for name, role in rows if role in FOLDS})
    found = device_faults(parents_of(spec.tree.parents), roles)
    if spec.tree.auto and not roles.aggregators:
        found = ["no device may fold for others; give one the role 'aggregator', or 'both'"]
    found = found or _star_faults(spec, _parents(spec, roles), training)
    return [Fault("tree.parents", message) for message in found]


def _parents(spec: JobSpec, roles: Roles) -> dict[str, str]:
    return shared_out(roles) if spec.tree.auto else parents_of(spec.tree.parents)


def _star_faults(spec: JobSpec, parents: Mapping[str, str], training: Collection[str]) -> list[str]:
    return star_faults(parents, training) if is_agglomerative(spec) else []


def expected_clusters(
    spec: JobSpec, devices: Sequence[Device], training: Sequence[str]
) -> list[Cluster]:
    """The clusters as ``assign_clusters`` would set them before a launch; no device is changed.

    ``devices`` are those enrolled; ``training`` names those that would train.
    """
    if not spec.tree.grown:
        return []
    able = {d.name: d for d in devices if d.role in FOLDS}
    if spec.tree.auto:
        parents = shared_out(Roles(training, {n for n, d in able.items() if d.is_online}))
    else:
        known = {*training, *able}
        parents = _present(parents_of(spec.tree.parents), known, set(able))
    heads = _needed(parents, training)
    kept = {child: head for child, head in parents.items() if child in heads | set(training)}
    return list(clusters(kept))


def assign_clusters(spec: JobSpec, training: Sequence[Participant]) -> list[Participant]:
    """All of a job's devices, not stored yet: those that train, and those that only fold for them.

    Whoever is gone since the launch has no cluster: its children report to the next one above it.
    With ``auto`` those share out the others that are online now. Raises SpecError where children
    are to learn from a parent, and not all have the same one.
    """
    if not spec.tree.grown:
        return list(training)
    able = {d.name: d for d in Device.objects.filter(revoked_at=None, role__in=FOLDS)}
    names = [row.device.name for row in training]
    if spec.tree.auto:
        parents = shared_out(Roles(names, {n for n, d in able.items() if d.is_online}))
    else:
        parents = _present(parents_of(spec.tree.parents), {*names, *able}, set(able))
    if found := _star_faults(spec, parents, names):
        raise SpecError([Fault("tree.parents", message) for message in found])
    heads = _needed(parents, names)
    only = [able[name] for name in sorted(heads - set(names))]
    rows = [*training, *(_aggregator(training[0].job, d, len(names)) for d in only)]
    for slot, row in enumerate(rows):
        row.slot = slot
    slots = {row.device.name: row.slot for row in rows}
    for row in rows:
        row.parent = slots.get(parents.get(row.device.name, ""))
    return rows


def _aggregator(job: Job, device: Device, slot: int) -> Participant:
    return Participant(job=job, device=device, slot=slot, dataset="", examples=0)


def _present(parents: dict[str, str], known: set[str], able: set[str]) -> dict[str, str]:
    """The tree without those that are not there: children are handed on upward."""
    found = {}
    for child in set(parents) & known:
        above: str | None = parents[child]
        while above is not None and above not in able:
            above = parents.get(above)
        if above is not None:
            found[child] = above
    return found


def _needed(parents: dict[str, str], training: Sequence[str]) -> set[str]:
    """The heads above any device that trains."""
    found = set()
    for name in training:
        while name in parents:
            name = parents[name]
            found.add(name)
    return found


def clusters_of(rows: Sequence[Participant]) -> list[tuple[int, list[int]]]:
    """A job's clusters as Round.clusters stores them; [] where the server folds all."""
    slots = {row.device.name: row.slot for row in rows}
    names = {row.slot: row.device.name for row in rows}
    parents = {row.device.name: names[row.parent] for row in rows if row.parent in names}
    return [(slots[each.head], [slots[c] for c in each.children]) for each in clusters(parents)]


def fold_input_rows(assignment: Assignment) -> list[Assignment]:
    """The assignments whose updates a fold takes, by slot; none for other work.

    They are fixed when the collection closes, and do not change while a fold is open.
    """
    if assignment.task != Task.FOLD.value:
        return []
    state = to_round(assignment.round)
    return update_rows(assignment.round, inputs_of_fold(state, assignment.device.name))


def update_rows(row: Round, items: Sequence[AssignmentState]) -> list[Assignment]:
    """The rows of assignments of a round that have an update, by slot."""
    wanted = {(item.device, item.task.value, item.attempt) for item in items}
    parts = row.assignments.exclude(update_artefact=None)
    return [
        part
        for part in parts.select_related("device", "update_artefact").order_by("slot", "task")
        if (part.device.name, part.task, part.attempt) in wanted
    ]


def count_leaf_updates(row: Round, parts: Sequence[Assignment]) -> int:
    """Of how many devices' own updates the updates of these assignments are made."""
    held = {(part.device.name, part.task, part.attempt) for part in parts}
    state = to_round(row)
    return sum(
        len(leaf_updates(state, item))
        for item in state.assignments
        if (item.device, item.task.value, item.attempt) in held
    )


def fold_summaries(row: Round) -> list[dict[str, Any]]:
    """What Round.fold keeps of each cluster that was folded by its device, by slot.

    ``level`` 1 sends to the server; ``bytes_in`` are those of the updates it folded, ``bytes_up``
    those of the one it sent.
    """
    above = {slot: head for head, below in row.clusters for slot in below}
    folds = row.assignments.filter(task=Task.FOLD.value, phase__in=DELIVERED_WORDS)
    found = []
    for part in folds.select_related("round__job", "device", "update_artefact").order_by("slot"):
        parts = fold_input_rows(part)
        found.append(
            {
                "slot": part.slot,
                "level": 1 + depth(above, part.slot),
                "slots": [item.slot for item in parts],
                "examples": part.examples,
                "bytes_in": sum(map(_size, parts)),
                "bytes_up": _size(part),
            }
        )
    return found


def fold_input(assignment: Assignment) -> dict[str, Any] | None:
    """What a device is told of the cluster it folds; None for other work."""
    if assignment.task != Task.FOLD.value:
        return None
    shapes = shapes_of(assignment.round.job_id, assignment.slot)
    return {
        "shapes": {name: list(shape) for name, shape in sorted(shapes.items())},
        "updates": [
            {
                "sha256": part.update_artefact_id,
                "size_bytes": _size(part),
                "slot": part.slot,
                "examples": part.examples,
            }
            for part in fold_input_rows(assignment)
        ],
    }


def check_fold_report(assignment: Assignment, examples: int) -> None:
    """Raise AssignmentRefused where a cluster's update claims a weight that its parts have not."""
    if assignment.task != Task.FOLD.value:
        return
    due = sum(part.examples for part in fold_input_rows(assignment))
    if examples != due:
        raise AssignmentRefused(f"the cluster's updates have {due} examples, not {examples}")


def reported_text(assignment: Assignment) -> str:
    """What the job's log says of a fold that was reported."""
    parts = fold_input_rows(assignment)
    names = ", ".join(part.device.name for part in parts)
    read, sent = sum(map(_size, parts)), _size(assignment)
    if is_agglomerative(assignment.round.job.job_spec):
        return f"learned from {names}: {read:,} bytes of what they say, {sent:,} sent"
    return f"folded {names}: {read:,} bytes of updates became {sent:,}"


def _size(part: Assignment) -> int:
    return part.update_artefact.size_bytes if part.update_artefact else 0
