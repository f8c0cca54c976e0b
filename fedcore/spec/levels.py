"""Trees of models, level by level: devices at the bottom, one root at the top, all leaves as deep.

The plan half of agglomerative federated learning (arXiv 2312.11489): end, edge, cloud.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedcore.errors import Fault, SpecError

if TYPE_CHECKING:
    from fedcore.spec.job import JobSpec

PATH = "tree.parents"


@dataclass(frozen=True)
class Levels:
    """``rows[0]`` are the leaves, the last row is the root alone; ``parents``: child -> parent."""

    rows: tuple[tuple[str, ...], ...]
    parents: Mapping[str, str]

    def children(self, name: str) -> tuple[str, ...]:
        """In the order of their row; none of a leaf."""
        below = (child for row in self.rows for child in row)
        return tuple(child for child in below if self.parents.get(child) == name)


def level_specs(spec: JobSpec) -> list[JobSpec]:
    """The job as each level has it, from the leaves up: its model, and how it trains."""
    options = spec.distill
    adapter = replace(spec.adapter, kind=options.parents_train)
    base = spec.model.base if adapter.family.freezes_base else "auto"
    train = replace(
        spec.train,
        learning_rate=options.parent_learning_rate,
        local_steps=options.parent_steps or spec.train.local_steps,
    )
    models = [replace(spec.model, name=name, base=base) for name in options.models]
    parents = [replace(spec, model=model, adapter=adapter, train=train) for model in models]
    return [spec, *parents]


def exported_spec(spec: JobSpec) -> JobSpec:
    """The job of the model that is exported: the topmost level's where devices keep weights."""
    return level_specs(spec)[-1] if spec.method.family.keeps_weights_on_device else spec


def level_names(count: int) -> tuple[str, ...]:
    """end, cloud; end, edge, cloud; with more levels the edges are numbered upwards."""
    between = count - 2
    edges = ["edge"] if between == 1 else [f"edge {number + 1}" for number in range(between)]
    return ("end", *edges, "cloud")


def grown(leaves: Sequence[str], above: int, most: int = 0) -> Levels:
    """A tree of ``above`` levels over the leaves, in their order.

    Every parent but the root gets at most ``most`` children (0: any number), evenly.
    """
    names = level_names(above + 1)
    rows, parents = [tuple(leaves)], dict[str, str]()
    for level in range(1, above + 1):
        below = rows[-1]
        count = 1 if level == above or not most else -(-len(below) // most)
        row = (
            (names[level],)
            if level == above
            else tuple(f"{names[level]}-{number}" for number in range(count))
        )
        parents |= {child: row[place * count // len(below)] for place, child in enumerate(below)}
        rows.append(row)
    return Levels(tuple(rows), parents)


def planted(leaves: Sequence[str], above: int, parents: Mapping[str, str]) -> Levels:
    """The tree that ``parents`` says. Raises SpecError with every fault of it."""
    if faults := tree_faults(leaves, above, parents):
        raise SpecError([Fault(PATH, message) for message in faults])
    rows = [tuple(leaves)]
    while len(rows) <= above:
        rows.append(tuple(dict.fromkeys(parents[child] for child in rows[-1])))
    return Levels(tuple(rows), dict(parents))


def tree_faults(leaves: Sequence[str], above: int, parents: Mapping[str, str]) -> list[str]:
    """Orphans, cycles, several roots, and leaves that are not ``above`` levels below the root."""
    inner = set(parents.values())
    faults = [f"{name} has no parent; name one" for name in leaves if name not in parents]
    faults += [
        f"{name} is no device, and nothing stands under it; leave it out"
        for name in sorted(set(parents) - set(leaves) - inner)
    ]
    faults += [
        f"{name} holds data and cannot be a parent too; give the parent a name of its own"
        for name in sorted(inner & set(leaves))
    ]
    # Upwards from each leaf; a path ends at a root, or where a name comes again.
    paths = {name: [name] for name in leaves}
    for path in paths.values():
        while path[-1] in parents and path[-1] not in path[:-1]:
            path.append(parents[path[-1]])
    if rings := sorted(name for name, path in paths.items() if path[-1] in path[:-1]):
        return [*faults, f"the way up from {', '.join(rings)} is a cycle; break it"]
    roots = sorted(inner - set(parents))
    if len(roots) > 1:
        faults.append(f"{', '.join(roots)} have no parent; put them under one root")
    faults += [
        f"{name} has {len(path) - 1} levels above it, but {above} models are named for them"
        for name, path in paths.items()
        if name in parents and len(path) - 1 != above
    ]
    return faults
