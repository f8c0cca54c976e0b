"""What a fold reads: checked names, shapes and weights, opened as rows of numbers."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedcore.aggregation.block_pass import FoldInputs, WeightedUpdate, norm, square_sums
from fedcore.aggregation.flat_file import FlatFile, FlatLayout, Shapes, open_row
from fedcore.aggregation.folds import Strategy
from fedcore.aggregation.strategies import build
from fedcore.aggregation.update_files import Key, ServerFiles, UpdateFile, UpdatesRefused
from fedcore.aggregation.weighting import UpdateStats
from fedcore.errors import FoldError, WireError
from fedcore.formats.frame_header import read_header
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import factor_of
from fedcore.wire.frame import Layout
from fedcore.wire.update import open_update

Span = tuple[int, int]
SPARE_FILES = 512  # descriptors for everything else that the process has open


@dataclass(frozen=True)
class Shard:
    """A range [start, stop) of the row to fold, and what each update's filters multiply it with."""

    span: Span
    factors: Mapping[Key, float]


def open_inputs(
    spec: JobSpec,
    before: ServerFiles,
    updates: Sequence[UpdateFile],
    folder: Path,
    shard: Shard | None = None,
    strategy: Strategy | None = None,
) -> FoldInputs:
    """Open all that a fold reads; ``folder`` is for updates that have to be decoded.

    A ``shard`` opens what its range needs, and knows the factors.
    Raises FoldError without updates, with two of one key, with weights that are negative or sum to
    nothing; UpdatesRefused where an update does not fit or cannot be weighed.
    """
    strategy = strategy or build(spec)
    row = row_of(spec, read_header(before.model).shapes)
    members = open_members(strategy, row, updates, folder, shard)
    moments = _open_state(strategy, before.state, row, folder)
    return FoldInputs(strategy, row, open_row(before.model, row, folder), moments, members)


def open_members(
    strategy: Strategy,
    row: FlatLayout,
    updates: Sequence[UpdateFile],
    folder: Path,
    shard: Shard | None = None,
) -> tuple[WeightedUpdate, ...]:
    """The updates that have a say, with share and factor each. Raises as ``open_inputs``."""
    shares = shares_of(strategy, updates)
    span = shard.span if shard else (0, row.elements)
    heard = [item for item in updates if item.key in shares]
    _allow_files(len(heard))
    files = _open_updates(heard, row, folder, span)
    factors = shard.factors if shard else _factors(strategy, heard, files, row, shares)
    return tuple(
        WeightedUpdate(key, shares[key], factors[key], *files[key]) for key in sorted(shares)
    )


def row_of(spec: JobSpec, shapes: Shapes) -> FlatLayout:
    """The numbers that a fold moves: all but frozen factors and what the base has taken in."""
    frozen = ("MA", "MB", spec.adapter.averaging.frozen_factor)
    return FlatLayout.of(
        {name: side for name, side in shapes.items() if factor_of(name)[1] not in frozen}
    )


def shares_of(strategy: Strategy, updates: Sequence[UpdateFile]) -> dict[Key, float]:
    """The share of the total weight of each update that has a say; they sum to 1."""
    if not updates:
        raise FoldError("no update arrived, so there is nothing to fold; the global weights stay")
    weights = {update.key: float(update.weight) for update in updates}
    if len(weights) != len(updates):
        raise FoldError("two updates claim the same slot and attempt; fold each once")
    if any(not math.isfinite(weight) or weight < 0 for weight in weights.values()):
        raise FoldError("an update has a weight that is negative or not finite")
    total = math.fsum(weights.values())
    if total <= 0:
        raise FoldError("all updates have weight zero; check the devices' example counts")
    if strategy.fold.weighted:
        return {key: weight / total for key, weight in weights.items()}
    heard = [key for key, weight in weights.items() if weight]
    return {key: 1 / len(heard) for key in heard}


def _allow_files(count: int) -> None:
    """Each mapped file holds a descriptor, and whoever fetched it may hold another.

    Many systems begin with a limit of 1024, which a process may raise.
    """
    wanted = 2 * count + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _open_updates(
    updates: Sequence[UpdateFile], row: FlatLayout, folder: Path, span: Span
) -> dict[Key, tuple[FlatFile, int]]:
    found, refused = {}, {}
    for update in updates:
        try:
            found[update.key] = _open_update(update.path, row, folder, span), _size(update.path)
        except WireError as error:
            refused[update.key] = str(error)
    if refused:
        raise UpdatesRefused(refused)
    return found


def _open_update(path: Path, row: FlatLayout, folder: Path, span: Span) -> FlatFile:
    shapes = dict(zip(row.names, row.shapes, strict=True))
    if set(read_header(path).tensors) - set(shapes):
        open_update(path, shapes)  # refuses names that belong to nothing
    return open_row(path, row, folder, lambda path: open_update(path, shapes), span)


def _size(path: Path) -> int:
    return path.stat().st_size


def _factors(
    strategy: Strategy,
    updates: Sequence[UpdateFile],
    files: Mapping[Key, tuple[FlatFile, int]],
    row: FlatLayout,
    shares: Mapping[Key, float],
) -> dict[Key, float]:
    found = sorted(updates, key=lambda item: item.key)
    norms = [_norm(strategy, files[item.key][0], row) for item in found]
    return weighed(strategy, found, norms, shares)


def weighed(
    strategy: Strategy,
    found: Sequence[UpdateFile],
    norms: Sequence[float],
    shares: Mapping[Key, float],
) -> dict[Key, float]:
    """What each update is multiplied with: filters, then the weighing, then its own discount.

    Raises UpdatesRefused for those that cannot be weighed.
    """
    stats = [
        UpdateStats(norm, shares[item.key], item.steps, item.loss_before)
        for item, norm in zip(found, norms, strict=True)
    ]
    _refuse_unweighable(strategy, {item.key: told for item, told in zip(found, stats, strict=True)})
    factors = factors_of(strategy, stats)
    return {item.key: factor * item.scale for item, factor in zip(found, factors, strict=True)}


def factors_of(strategy: Strategy, stats: Sequence[UpdateStats]) -> list[float]:
    """Each filter is told the norm that the one before it left, the weighing what they all left.

    The weighing is not told of updates that have no share.
    """
    factors = [_filtered(strategy, item) for item in stats]
    if strategy.weighing is None:
        return factors
    left = [
        replace(item, norm=item.norm * factor) for item, factor in zip(stats, factors, strict=True)
    ]
    weighed = iter(strategy.weighing.factors([item for item in left if item.share]))
    return [
        factor * next(weighed) if item.share else factor
        for factor, item in zip(factors, left, strict=True)
    ]


def _refuse_unweighable(strategy: Strategy, stats: Mapping[Key, UpdateStats]) -> None:
    if strategy.weighing is None:
        return
    faults = {key: strategy.weighing.fault(item) for key, item in stats.items() if item.share}
    if refused := {key: fault for key, fault in faults.items() if fault}:
        raise UpdatesRefused(refused)


def _norm(strategy: Strategy, file: FlatFile, row: FlatLayout) -> float:
    """Frobenius; 0 where nobody asks for it, as it takes a pass over the update."""
    return norm(square_sums(file, row.elements)) if strategy.needs_norms else 0.0


def _filtered(strategy: Strategy, stats: UpdateStats) -> float:
    factor = 1.0
    for item in strategy.filters:
        factor *= item.factor(replace(stats, norm=stats.norm * factor))
    return factor


def state_layout(strategy: Strategy, row: FlatLayout) -> Layout:
    """The server state's tensors: sorted by name they are one row of weights after another."""
    keys = [
        f"{number}.{stage.name}.{moment}"
        for number, stage in enumerate(strategy.stages)
        for moment in sorted(stage.start)
    ]
    shapes = list(zip(row.names, row.shapes, strict=True))
    return {f"{key} {name}": ("F32", shape) for key in keys for name, shape in shapes}


def _open_state(
    strategy: Strategy, path: Path | None, row: FlatLayout, folder: Path
) -> FlatFile | None:
    if path is None:
        return None
    header = read_header(path)
    if header.meta.get("strategy") != strategy.name:
        raise FoldError(
            f"the server state is of {header.meta.get('strategy')}, not of {strategy.name}; "
            "start without it"
        )
    shapes = {key: tuple(shape) for key, (_, shape) in state_layout(strategy, row).items()}
    if any(key not in header.shapes or header.shapes[key] != shapes[key] for key in shapes):
        raise FoldError("the server state does not fit the global weights; start without it")
    return open_row(path, FlatLayout.of(shapes), folder) if shapes else None


def rounds_of(state: Path | None) -> int:
    """How many folds a server state has seen."""
    return int(read_header(state).meta["rounds"]) if state else 0
