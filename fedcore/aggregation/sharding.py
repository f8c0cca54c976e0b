"""A fold in shards: ranges of the row folded anywhere and in any order, then joined.

A shard is a range of whole blocks, so it does with its numbers exactly what the undivided fold
does: the joined bytes are the same. What a filter needs to know of whole updates is measured once,
before, and given to every shard.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from fedcore.aggregation.block_pass import BLOCK, fold_range
from fedcore.aggregation.elementwise import ServerWriter
from fedcore.aggregation.flat_file import FlatLayout, Span, open_flat
from fedcore.aggregation.flat_inputs import Shard, open_inputs
from fedcore.aggregation.flat_writer import FlatWriter
from fedcore.aggregation.fold_task import FoldReport, NextFiles, ServerFiles
from fedcore.aggregation.lowrank.averaging_error import factor_error
from fedcore.aggregation.update_files import Key, UpdateFile
from fedcore.errors import FoldError
from fedcore.formats.frame_header import read_header
from fedcore.spec.job import JobSpec
from fedcore.wire.frame import FrameInfo


@dataclass(frozen=True)
class ShardReport:
    """A folded shard's frame, and each update's sum of squares within it."""

    frame: FrameInfo
    squares: dict[Key, float]


@dataclass(frozen=True)
class ShardFile:
    """A stored shard: its range of the row, and its updates' sums of squares."""

    path: Path
    span: Span
    squares: Mapping[Key, float]


@dataclass(frozen=True)
class FoldedShards:
    """All shards of a fold, and the factors that they were given."""

    shards: Sequence[ShardFile]
    factors: Mapping[Key, float]


def shardable(spec: JobSpec) -> bool:
    """Whether a job's folds may be cut: coordinates may, products and frozen factors may not.

    Adapters under any rule but fedit are folded whole; they are small.
    """
    return spec.adapter.averaging.shardable


def spans(elements: int, count: int) -> list[Span]:
    """At most ``count`` ranges of whole blocks, nearly equal, that make up the row."""
    blocks = -(-elements // BLOCK)
    edges = sorted({round(number * blocks / count) * BLOCK for number in range(count + 1)})
    return [(start, min(stop, elements)) for start, stop in pairwise(edges)]


def shard_factors(
    spec: JobSpec, before: ServerFiles, updates: Sequence[UpdateFile], folder: Path
) -> dict[Key, float]:
    """The factor of each update; reads all updates where the strategy has a filter."""
    inputs = open_inputs(spec, before, updates, folder)
    return {update.key: update.factor for update in inputs.updates}


def fold_shard(
    spec: JobSpec, before: ServerFiles, updates: Sequence[UpdateFile], shard: Shard, out: Path
) -> ShardReport:
    """Fold one range into a frame of its own: the model's numbers, then those of each moment.

    Raises as ``fold_files`` does; a number that is not finite is found by the shard that holds it.
    """
    inputs = open_inputs(spec, before, updates, out.parent, shard)
    start, stop = shard.span
    size = stop - start
    layout = _shard_layout(1 + inputs.moment_rows, size)
    with FlatWriter(out, layout.frame_layout, {"kind": "shard"}) as writer:
        squares = fold_range(
            inputs, shard.span, lambda row, at, block: writer.put(row * size + at - start, block)
        )
    assert writer.info is not None
    sums = zip(inputs.updates, squares, strict=True)
    return ShardReport(writer.info, {update.key: math.fsum(blocks) for update, blocks in sums})


def _shard_layout(rows: int, size: int) -> FlatLayout:
    return FlatLayout.of({f"{number:03}": (size,) for number in range(rows)})


def join_shards(
    spec: JobSpec,
    before: ServerFiles,
    updates: Sequence[UpdateFile],
    folded: FoldedShards,
    after: NextFiles,
) -> FoldReport:
    """Write the next global model and server state from all shards of a fold.

    Raises FoldError where the shards do not make up the row.
    """
    began = time.perf_counter()
    shards = sorted(folded.shards, key=lambda shard: shard.span)
    elements = FlatLayout.of(read_header(before.model).shapes).elements
    edges = [0, *(edge for shard in shards for edge in shard.span), elements]
    if any(one != two for one, two in zip(edges[::2], edges[1::2], strict=True)):
        raise FoldError("the shards of this fold leave gaps; fold it again")
    # The aggregation error of low-rank factors needs the updates' numbers once more.
    stop = elements if spec.adapter.family.trains_low_rank_factors else 0
    needed = Shard((0, stop), folded.factors)
    inputs = open_inputs(spec, before, updates, after.model.parent, needed)
    with ServerWriter(inputs, before, after) as writer:
        for row in range(1 + inputs.moment_rows):
            for shard in shards:
                _copy_row(shard, row, 1 + inputs.moment_rows, writer)
    sums = [math.fsum(shard.squares[update.key] for shard in shards) for update in inputs.updates]
    error = factor_error(spec, inputs, before.model)
    norms = [math.sqrt(total) for total in sums]
    report = FoldReport.of(inputs.updates, norms, error, writer.frames)
    return replace(report, seconds=time.perf_counter() - began)


def _copy_row(shard: ShardFile, row: int, rows: int, writer: ServerWriter) -> None:
    """Copy one row of a shard to its place in the undivided row."""
    start, stop = shard.span
    size = stop - start
    file = open_flat(shard.path, _shard_layout(rows, size), shard.path.parent)
    for at in range(0, size, BLOCK):
        first, last = row * size + at, row * size + min(at + BLOCK, size)
        writer.put(row, start + at, file.read(first, last))
        file.release(first, last)
