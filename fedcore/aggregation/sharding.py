"""A fold in pieces: shards of the row folded anywhere and in any order, then joined.

A shard is a range of whole blocks, so it does with its numbers exactly what the undivided fold
does: the joined bytes are the same. What a filter needs to know of whole updates is found once,
before, and given to every shard.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fedcore.aggregation.block_pass import BLOCK, fold_range
from fedcore.aggregation.elementwise import Outputs, refuse_unsound, report
from fedcore.aggregation.flat_file import FlatLayout, open_row
from fedcore.aggregation.flat_inputs import Shard, Span, open_inputs
from fedcore.aggregation.flat_writer import FlatWriter
from fedcore.aggregation.fold_outputs import FoldReport
from fedcore.aggregation.update_files import Key, ServerFiles, UpdateFile
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


def divisible(spec: JobSpec) -> bool:
    """Whether a job's folds may be cut: coordinates may, products and frozen factors may not.

    Adapters under any rule but fedit are folded whole; they are small.
    """
    return spec.adapter.averaging.divisible


def spans(elements: int, count: int) -> list[Span]:
    """At most ``count`` ranges of whole blocks, nearly equal, that make up the row."""
    blocks = -(-elements // BLOCK)
    edges = sorted({round(number * blocks / count) * BLOCK for number in range(count + 1)})
    return [(start, min(stop, elements)) for start, stop in pairwise(edges)]


def factors_of(
    spec: JobSpec, before: ServerFiles, updates: Sequence[UpdateFile], folder: Path
) -> dict[Key, float]:
    """What each update is multiplied with; reads all updates where the strategy has a filter."""
    inputs = open_inputs(spec, before, updates, folder)
    return {member.key: member.factor for member in inputs.members}


def fold_shard(
    spec: JobSpec, before: ServerFiles, updates: Sequence[UpdateFile], shard: Shard, out: Path
) -> ShardReport:
    """Fold one range into a frame of its own: the weights' numbers, then those of each moment.

    Raises as ``fold_files`` does; a number that is not finite is found by the shard that holds it.
    """
    inputs = open_inputs(spec, before, updates, out.parent, shard)
    start, stop = shard.span
    size = stop - start
    with FlatWriter(out, _layout(1 + inputs.moment_rows, size), {"kind": "shard"}) as writer:
        squares = fold_range(
            inputs, shard.span, lambda row, at, block: writer.put(row * size + at - start, block)
        )
        refuse_unsound(inputs, squares, start)
    assert writer.info is not None
    members = zip(inputs.members, squares, strict=True)
    return ShardReport(writer.info, {member.key: math.fsum(found) for member, found in members})


def _layout(rows: int, size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {f"{number:03}": ("F32", (size,)) for number in range(rows)}


def join_shards(
    spec: JobSpec,
    before: ServerFiles,
    updates: Sequence[UpdateFile],
    folded: FoldedShards,
    after: tuple[Path, Path],
) -> FoldReport:
    """Write the next global weights and server state of all shards of a fold.

    Raises FoldError where the shards do not make up the row.
    """
    began = time.perf_counter()
    parts = sorted(folded.shards, key=lambda shard: shard.span)
    elements = FlatLayout.of(read_header(before.model).shapes).elements
    edges = [0, *(edge for part in parts for edge in part.span), elements]
    if any(one != two for one, two in zip(edges[::2], edges[1::2], strict=True)):
        raise FoldError("the shards of this fold leave gaps; fold it again")
    whole = Shard(
        (0, elements if spec.adapter.family.trains_low_rank_factors else 0), folded.factors
    )
    inputs = open_inputs(spec, before, updates, after[0].parent, whole)
    with Outputs(inputs, before, after) as outputs:
        for number in range(1 + inputs.moment_rows):
            for part in parts:
                _copy(part, number, 1 + inputs.moment_rows, outputs)
    sums = [math.fsum(part.squares[member.key] for part in parts) for member in inputs.members]
    norms = [math.sqrt(total) for total in sums]
    return report(spec, before, inputs, norms, outputs.infos, time.perf_counter() - began)


def _copy(part: ShardFile, number: int, rows: int, outputs: Outputs) -> None:
    """One row of a shard to where it belongs."""
    start, stop = part.span
    size = stop - start
    row = FlatLayout.of({name: shape for name, (_, shape) in _layout(rows, size).items()})
    file = open_row(part.path, row, part.path.parent)
    for at in range(0, size, BLOCK):
        end = min(at + BLOCK, size)
        outputs.put(number, start + at, file.read(number * size + at, number * size + end))
        file.release(number * size + at, number * size + end)
