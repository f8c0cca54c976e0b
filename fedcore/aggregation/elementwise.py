"""A fold coordinate by coordinate: the row of numbers that train, through filters, fold and stages.

Updates are taken in the order of their keys, never of their arrival, and the numbers in fixed
blocks: a fold repeated after a crash, on another machine, on more threads or in shards gives the
same bytes. In memory are a few blocks of each update at a time, as pages of their files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedcore.aggregation.block_pass import BLOCK, FoldInputs, WeightedUpdate, fold_range, norm
from fedcore.aggregation.flat_inputs import open_inputs, rounds_of, state_layout
from fedcore.aggregation.flat_writer import FlatWriter
from fedcore.aggregation.fold_outputs import FoldReport
from fedcore.aggregation.folds import Strategy
from fedcore.aggregation.lowrank.averaging_error import aggregation_error
from fedcore.aggregation.update_files import ServerFiles, UpdateFile, UpdatesRefused
from fedcore.spec.job import JobSpec
from fedcore.wire.frame import FrameInfo, FrameReader


@dataclass(frozen=True)
class Paths:
    """The files of a fold: what was before, where the next global weights and state go."""

    before: ServerFiles
    weights: Path
    state: Path


def fold_row(
    spec: JobSpec,
    paths: Paths,
    updates: Sequence[UpdateFile],
    threads: int,
    strategy: Strategy,
) -> FoldReport:
    """Fold updates into the next global weights, on ``threads`` threads (0: all cores).

    What it writes holds what it folds: neither frozen factors nor what the base has taken in.
    Raises as ``fold_files`` does.
    """
    began = time.perf_counter()
    before = paths.before
    inputs = open_inputs(spec, before, updates, paths.weights.parent, strategy=strategy)
    with Outputs(inputs, before, (paths.weights, paths.state)) as outputs:
        squares = fold_range(inputs, (0, inputs.row.elements), outputs.put, threads)
        refuse_unsound(inputs, squares)
    norms = [norm(found) for found in squares]
    return report(spec, before, inputs, norms, outputs.infos, time.perf_counter() - began)


class Outputs:
    """The frames that a fold writes: the next global weights, the next server state."""

    def __init__(self, inputs: FoldInputs, before: ServerFiles, after: tuple[Path, Path]) -> None:
        name = inputs.strategy.name
        meta = {"kind": "state", "strategy": name, "rounds": str(rounds_of(before.state) + 1)}
        row = inputs.row
        layout = {n: ("F32", shape) for n, shape in zip(row.names, row.shapes, strict=True)}
        self._elements = row.elements
        self._weights = FlatWriter(after[0], layout, dict(FrameReader(before.model).meta))
        self._state = FlatWriter(after[1], state_layout(inputs.strategy, row), meta)
        self._stack = ExitStack()

    def __enter__(self) -> Outputs:
        self._stack.enter_context(self._state)
        self._stack.enter_context(self._weights)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def put(self, number: int, start: int, block: Tensor) -> None:
        """A block of row ``number``: 0 the weights, then the moments."""
        if number:
            self._state.put((number - 1) * self._elements + start, block)
        else:
            self._weights.put(start, block)

    @property
    def infos(self) -> tuple[FrameInfo, FrameInfo]:
        assert self._weights.info is not None and self._state.info is not None
        return self._weights.info, self._state.info


def refuse_unsound(inputs: FoldInputs, squares: Sequence[Sequence[float]], start: int = 0) -> None:
    """Raise UpdatesRefused for updates whose squares of blocks from ``start`` on are not finite."""
    reasons = {
        member.key: _unsound(inputs, member, start + number * BLOCK)
        for member, found in zip(inputs.members, squares, strict=True)
        for number in [next((n for n, item in enumerate(found) if not math.isfinite(item)), None)]
        if number is not None
    }
    if reasons:
        raise UpdatesRefused(reasons)


def _unsound(inputs: FoldInputs, member: WeightedUpdate, start: int) -> str:
    block = member.row.read(start, min(start + BLOCK, inputs.row.elements))
    place = start + int(torch.isfinite(block).logical_not().nonzero()[0])
    name = inputs.row.name_at(place)
    return f"tensor {name!r} holds NaN or infinity; the update is refused"


def report(
    spec: JobSpec,
    before: ServerFiles,
    inputs: FoldInputs,
    norms: Sequence[float],
    frames: tuple[FrameInfo, FrameInfo],
    seconds: float,
) -> FoldReport:
    error = None
    if spec.adapter.family.trains_low_rank_factors and inputs.strategy.fold.weighted:
        weights_before = FrameReader(before.model)
        deltas = [
            (member.share, _delta(inputs, member, weights_before)) for member in inputs.members
        ]
        error = aggregation_error(weights_before, deltas)
    weights: dict[int, float] = {}
    for member in inputs.members:
        weights[member.key[0]] = weights.get(member.key[0], 0.0) + member.share
    sizes = {member.key[0]: size for member, size in zip(inputs.members, norms, strict=True)}
    size_bytes = sum(member.size_bytes for member in inputs.members)
    return FoldReport(sizes, weights, error, seconds, size_bytes, *frames)


def _delta(
    inputs: FoldInputs, member: WeightedUpdate, before: FrameReader
) -> Callable[[str], Tensor]:
    """A member's filtered tensors by name; what is frozen has not changed."""

    def read(name: str) -> Tensor:
        if name not in inputs.row.names:
            return torch.zeros(before.shapes[name])
        number = inputs.row.names.index(name)
        tensor = member.row.read(*inputs.row.span(name)) * member.factor
        return tensor.view(inputs.row.shapes[number])

    return read
