"""The aggregation tree of a hierarchical job.

A device without a parent reports to the server. A parent folds the updates of its children, and its
own if it trains, and sends one update upward. It may have a parent itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", str, int)
AUTO = "auto"


@dataclass(frozen=True)
class Cluster:
    """A head and the devices whose updates it folds, which may be heads themselves."""

    head: str
    children: tuple[str, ...]


@dataclass(frozen=True)
class Roles:
    """The devices of a job, by name, that train and that may fold."""

    trainers: Collection[str]
    aggregators: Collection[str]


def parents_of(entries: Iterable[str]) -> dict[str, str]:
    """Child -> parent of entries ``CHILD=PARENT``; {} for ``auto``, which depends on the fleet."""
    pairs = (entry.rpartition("=") for entry in entries if entry != AUTO)
    return {child.strip(): parent.strip() for child, _, parent in pairs}


def entry_faults(entries: Sequence[str]) -> list[str]:
    """Every error of the entries that can be found without knowing the devices."""
    if AUTO in entries:
        return [f"give {AUTO} alone, or each CHILD=PARENT"] if len(entries) > 1 else []
    faults = [
        f"{entry!r}: give CHILD=PARENT, both names of devices"
        for entry in entries
        if not all(part.strip() for part in entry.rpartition("="))
    ]
    children = [entry.rpartition("=")[0].strip() for entry in entries]
    twice = sorted({child for child in children if child and children.count(child) > 1})
    faults += [f"{child} has two parents; a device reports to one" for child in twice]
    return faults + [f"{' under '.join(ring)} is a cycle; break it" for ring in cycles(entries)]


def cycles(entries: Iterable[str]) -> list[list[str]]:
    """Each ring of devices, from its first name back to it."""
    parents, seen, rings = parents_of(entries), set[str](), []
    for child in sorted(parents):
        path: list[str] = []
        name: str | None = child
        while name is not None and name not in seen and name not in path:
            path.append(name)
            name = parents.get(name)
        if name in path:
            ring = path[path.index(name) :]
            start = ring.index(min(ring))
            rings.append([*ring[start:], *ring[:start], ring[start]])
        seen.update(path)
    return rings


def device_faults(parents: Mapping[str, str], roles: Roles) -> list[str]:
    """Every error of a tree for the devices of a job."""
    known = {*roles.trainers, *roles.aggregators}
    orphans = sorted({*parents, *parents.values()} - known)
    faults = [f"no device of this job is called {name!r}; see the devices" for name in orphans]
    unfit = sorted(set(parents.values()) & known - set(roles.aggregators))
    faults += [
        f"{name} may not fold for others; give it the role 'aggregator', or 'both' if it trains too"
        for name in unfit
    ]
    idle = sorted(set(parents) & known - set(roles.trainers) - set(parents.values()))
    return faults + [f"{name} neither trains nor folds for anybody; leave it out" for name in idle]


def star_faults(parents: Mapping[str, str], trainers: Collection[str]) -> list[str]:
    """Every reason why a tree is not one parent with all training devices below it."""
    heads = sorted(set(parents.values()))
    faults = [
        f"{name} has no parent; name one, or leave the device out of participation.devices"
        for name in sorted(set(trainers) - {*parents, *heads})
    ]
    faults += [
        f"{name} trains on data of its own and cannot be the parent too; take another device"
        for name in heads
        if name in trainers
    ]
    if len(heads) > 1:
        faults.append(f"{', '.join(heads)} are {len(heads)} parents; name one")
    return faults


def shared_out(roles: Roles) -> dict[str, str]:
    """Child -> parent: devices that only train, spread evenly by name over those that fold."""
    heads = sorted(roles.aggregators)
    leaves = sorted(set(roles.trainers) - set(heads)) if heads else []
    return {leaf: heads[place * len(heads) // len(leaves)] for place, leaf in enumerate(leaves)}


def clusters(parents: Mapping[str, str]) -> tuple[Cluster, ...]:
    """The clusters of a tree without cycles, inner ones first, then by name."""
    children: dict[str, list[str]] = {}
    for child in sorted(parents):
        children.setdefault(parents[child], []).append(child)
    order = sorted(children, key=lambda head: (-depth(parents, head), head))
    return tuple(Cluster(head, tuple(children[head])) for head in order)


def depth(parents: Mapping[Name, Name], name: Name) -> int:
    """Number of devices between a device and the server."""
    count = 0
    while name in parents:
        name, count = parents[name], count + 1
    return count
