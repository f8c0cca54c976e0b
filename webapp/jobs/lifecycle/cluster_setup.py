"""The aggregation tree of a job: checked before the launch, assigned to devices after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedcore.errors import Fault, SpecError
from fedcore.spec.job import JobSpec
from fedcore.spec.rules.method import training_devices
from fedcore.topology import (
    Cluster,
    Roles,
    clusters,
    device_faults,
    parents_of,
    shared_out,
    star_faults,
)
from webapp.devices.models import Device, DeviceRole
from webapp.jobs.models import Participant

AGGREGATING = (DeviceRole.AGGREGATOR, DeviceRole.BOTH)
TRAINING = (DeviceRole.TRAINER, DeviceRole.BOTH)


def tree_faults(spec: JobSpec) -> list[Fault]:
    """Every fault of a job's tree, given the devices enrolled now."""
    if not spec.tree.grown:
        return []
    rows = list(Device.objects.filter(revoked_at=None).values_list("name", "role"))
    chosen = set(training_devices(spec))
    training = {name for name, role in rows if role in TRAINING and (not chosen or name in chosen)}
    roles = Roles(training, {name for name, role in rows if role in AGGREGATING})
    messages = device_faults(parents_of(spec.tree.parents), roles)
    if spec.tree.auto and not roles.aggregators:
        messages = ["no device may aggregate; give one the role 'aggregator' or 'both'"]
    if not messages and spec.method.family.keeps_weights_on_device:
        parents = shared_out(roles) if spec.tree.auto else parents_of(spec.tree.parents)
        messages = star_faults(parents, training)
    return [Fault("tree.parents", message) for message in messages]


def expected_clusters(
    spec: JobSpec, devices: Sequence[Device], training: Sequence[str]
) -> list[Cluster]:
    """The clusters that ``assign_clusters`` would set now.

    ``devices`` are those enrolled; ``training`` names those that would train.
    """
    if not spec.tree.grown:
        return []
    parents = _parents(spec, [d for d in devices if d.role in AGGREGATING], training)
    members = _heads_above(parents, training) | set(training)
    return list(clusters({child: head for child, head in parents.items() if child in members}))


def assign_clusters(spec: JobSpec, training: Sequence[Participant]) -> list[Participant]:
    """All participants of a job, unsaved: the training devices, then those that only aggregate.

    If a head has left since the launch, its children are re-parented to the head above it. With
    ``auto`` the training devices are divided among the aggregators that can work now. Raises
    SpecError in an agglomerative job whose children do not all have the same parent.
    """
    if not spec.tree.grown:
        return list(training)
    aggregators = {d.name: d for d in Device.objects.filter(revoked_at=None, role__in=AGGREGATING)}
    names = [row.device.name for row in training]
    parents = _parents(spec, aggregators.values(), names)
    if spec.method.family.keeps_weights_on_device and (messages := star_faults(parents, names)):
        raise SpecError([Fault("tree.parents", message) for message in messages])
    job, rows = training[0].job, list(training)
    for name in sorted(_heads_above(parents, names) - set(names)):
        rows.append(Participant(job=job, device=aggregators[name], dataset="", examples=0))
    for slot, row in enumerate(rows):
        row.slot = slot
    slots = {row.device.name: row.slot for row in rows}
    for row in rows:
        row.parent = slots.get(parents.get(row.device.name, ""))
    return rows


def _parents(
    spec: JobSpec, aggregators: Iterable[Device], training: Sequence[str]
) -> dict[str, str]:
    """Parent of each child among the devices that exist now."""
    if spec.tree.auto:
        return shared_out(Roles(training, {d.name for d in aggregators if d.can_work}))
    heads = {device.name for device in aggregators}
    parents = parents_of(spec.tree.parents)
    present = {}
    for child in set(parents) & {*training, *heads}:
        head: str | None = parents[child]
        while head is not None and head not in heads:
            head = parents.get(head)
        if head is not None:
            present[child] = head
    return present


def _heads_above(parents: dict[str, str], training: Iterable[str]) -> set[str]:
    """The heads above any training device."""
    heads = set()
    for name in training:
        while name in parents:
            name = parents[name]
            heads.add(name)
    return heads


def clusters_of(rows: Sequence[Participant]) -> list[tuple[int, list[int]]]:
    """A job's clusters in the form of ``Round.clusters``; [] where the server aggregates all."""
    slots = {row.device.name: row.slot for row in rows}
    names = {row.slot: row.device.name for row in rows}
    parents = {row.device.name: names[row.parent] for row in rows if row.parent in names}
    return [(slots[each.head], [slots[c] for c in each.children]) for each in clusters(parents)]
