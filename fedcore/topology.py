"""Who folds whose updates: the tree of a hierarchical job as a value.

A device without a parent reports to the server. A parent folds what its children send, and its own
update where it trains, and sends one update upward; it may have a parent itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", str, int)
AUTO = "auto"


@dataclass(frozen=True)
class Cluster:
    """A device that folds and those whose updates it folds, which may be heads themselves."""

    head: str
    children: tuple[str, ...]


@dataclass(frozen=True)
class Roles:
    """The devices of a job by name: who trains, and who may fold."""

    trainers: Collection[str]
    aggregators: Collection[str]


def parents_of(entries: Iterable[str]) -> dict[str, str]:
    """Child -> parent of entries ``CHILD=PARENT``; {} for ``auto``, which only a fleet can say."""
    pairs = (entry.rpartition("=") for entry in entries if entry != AUTO)
    return {child.strip(): parent.strip() for child, _, parent in pairs}


def entry_faults(entries: Sequence[str]) -> list[str]:
    """What is wrong with entries before any device is known, all of it at once."""
    if AUTO in entries:
        return [f"give {AUTO} alone, or each CHILD=PARENT"] if len(entries) > 1 else []
    faults = [f"{entry!r}: give CHILD=PARENT, both names of devices" for entry in _odd(entries)]
    children = [entry.rpartition("=")[0].strip() for entry in entries]
    twice = sorted({child for child in children if child and children.count(child) > 1})
    faults += [f"{child} has two parents; a device reports to one" for child in twice]
    return faults + [f"{' under '.join(ring)} is a cycle; break it" for ring in cycles(entries)]


def _odd(entries: Iterable[str]) -> list[str]:
    return [entry for entry in entries if not all(p.strip() for p in entry.rpartition("="))]


def cycles(entries: Iterable[str]) -> list[list[str]]:
    """Each ring of devices, from its first name back to it."""
    parents, seen, found = parents_of(entries), set[str](), []
    for child in sorted(parents):
        path: list[str] = []
        name: str | None = child
        while name is not None and name not in seen and name not in path:
            path.append(name)
            name = parents.get(name)
        if name in path:
            ring = path[path.index(name) :]
            start = ring.index(min(ring))
            found.append([*ring[start:], *ring[:start], ring[start]])
        seen.update(path)
    return found


def device_faults(parents: Mapping[str, str], roles: Roles) -> list[str]:
    """What is wrong with a tree on the devices there are, all of it at once."""
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
    """What keeps a tree from being one parent with all that train below it, all of it at once."""
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
    """Trainers that do not fold themselves, dealt out by name among those that do, evenly."""
    heads = sorted(roles.aggregators)
    leaves = sorted(set(roles.trainers) - set(heads)) if heads else []
    return {leaf: heads[place * len(heads) // len(leaves)] for place, leaf in enumerate(leaves)}


def clusters(parents: Mapping[str, str]) -> tuple[Cluster, ...]:
    """The clusters of a tree without cycles, each after those of its children; else by name."""
    children: dict[str, list[str]] = {}
    for child in sorted(parents):
        children.setdefault(parents[child], []).append(child)
    order = sorted(children, key=lambda head: (-depth(parents, head), head))
    return tuple(Cluster(head, tuple(children[head])) for head in order)


def depth(parents: Mapping[Name, Name], name: Name) -> int:
    """How many devices stand between a device and the server."""
    found = 0
    while name in parents:
        name, found = parents[name], found + 1
    return found
