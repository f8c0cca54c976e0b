"""The pass over all updates: block by block, on several threads, with the same bits for any number.

A block is a fixed range of the row. Within it everything is elementwise and in the updates' fixed
order, so no bit depends on which thread takes which block, or on when. Each update's sum of squares
is taken first, while its block comes from memory; the sum then finds the block in the core's cache.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcore.aggregation.flat_file import FlatFile, FlatLayout, Numbers
from fedcore.aggregation.folds import Strategy
from fedcore.compute.device import torch_threads

# 1 MiB of fp32: an update's block and the sum fit a core's cache together, and work on one takes
# long enough that threads seldom wait for each other's Python.
BLOCK = 1 << 18
MAPPED_BYTES = 64 << 20  # of all files together, before pages are handed back
# Beyond these a sum of squares in fp32 may have lost numbers or overflowed: it is taken again.
TRUSTED = (1e-30, 3e38)

Put = Callable[[int, int, Tensor], None]  # row (0: weights, then moments), first place, numbers


@dataclass(frozen=True)
class WeightedUpdate:
    """An update in a fold: its key, its share of the weight (sum 1), its filters' factor."""

    key: tuple[int, int]
    share: float
    factor: float
    row: FlatFile
    size_bytes: int


@dataclass(frozen=True)
class FoldInputs:
    """All that one fold reads. ``moments``: the rows of the server state, None before it."""

    strategy: Strategy
    row: FlatLayout
    before: Numbers
    moments: FlatFile | None
    members: tuple[WeightedUpdate, ...]

    @property
    def rows(self) -> int:
        """How many rows are read next to each other."""
        return 1 + len(self.members) + self.moment_rows * (self.moments is not None)

    @property
    def moment_rows(self) -> int:
        return sum(len(stage.start) for stage in self.strategy.stages)

    def release(self, start: int, stop: int) -> None:
        for file in (self.before, *(member.row for member in self.members)):
            file.release(start, stop)
        for number in range(self.moment_rows if self.moments else 0):
            skipped = number * self.row.elements
            assert self.moments is not None
            self.moments.release(skipped + start, skipped + stop)


def fold_range(
    inputs: FoldInputs, span: tuple[int, int], put: Put, threads: int = 0
) -> list[list[float]]:
    """Fold places [start, stop) of the row; returns each member's sum of squares of each block.

    ``start`` must be a multiple of BLOCK. A sum that is not finite tells that the update is not;
    what was put is then worthless.
    """
    squares = [[0.0] * block_count(span) for _ in inputs.members]

    def work(number: int, start: int, stop: int) -> None:
        for member, found in enumerate(_fold_block(inputs, start, stop, put)):
            squares[member][number] = found

    _each_block(span, work, _Release(inputs.release, inputs.rows), threads)
    return squares


def square_sums(row: FlatFile, elements: int, threads: int = 0) -> list[float]:
    """The sum of squares of each block, in fp64; what a filter asks for before the fold."""
    span = (0, elements)
    found = [0.0] * block_count(span)

    def work(number: int, start: int, stop: int) -> None:
        found[number] = _square_sum(row.read(start, stop).double())

    _each_block(span, work, _Release(row.release, 1), threads)
    return found


def block_count(span: tuple[int, int]) -> int:
    return -(-(span[1] - span[0]) // BLOCK)


@dataclass(frozen=True)
class _Release:
    """Hands pages back behind the cursor, in pieces: each time interrupts the other cores."""

    run: Callable[[int, int], None]
    rows: int

    def behind(self, number: int, span: tuple[int, int]) -> None:
        """After block ``number`` of the span: the piece before the one it ends, if it ends one."""
        piece = max(1, MAPPED_BYTES // (self.rows * BLOCK * 4))
        stop = span[0] + (number + 1 - piece) * BLOCK
        if (number + 1) % piece == 0 and stop > span[0]:
            self.run(stop - piece * BLOCK, stop)


def _each_block(
    span: tuple[int, int], work: Callable[[int, int, int], None], release: _Release, threads: int
) -> None:
    """Call ``work(number, start, stop)`` for every block of a range, on ``threads`` threads.

    0 threads: as many as the process may use. The first exception ends all threads and is raised.
    """
    numbers, stopped = itertools.count(), threading.Event()

    def run() -> None:
        torch.set_num_threads(1)  # holds for the thread that says so, and sums depend on it
        try:
            while not stopped.is_set() and (number := next(numbers)) < block_count(span):
                start = span[0] + number * BLOCK
                work(number, start, min(start + BLOCK, span[1]))
                release.behind(number, span)
        except BaseException:
            stopped.set()
            raise

    with torch_threads(1), torch.no_grad():
        _run_threads(run, min(threads or len(os.sched_getaffinity(0)), block_count(span)))


def _run_threads(run: Callable[[], None], count: int) -> None:
    if count <= 1:
        run()
        return
    with ThreadPoolExecutor(count) as pool:
        for running in [pool.submit(run) for _ in range(count)]:
            running.result()


def _fold_block(inputs: FoldInputs, start: int, stop: int, put: Put) -> list[float]:
    squares: list[float] = []
    out = torch.empty(stop - start)
    shares = [member.share for member in inputs.members]
    inputs.strategy.fold.run(shares, _read(inputs.members, start, stop, squares), out)
    weights = inputs.before.read(start, stop)
    step = out
    number = 0
    for stage in inputs.strategy.stages:
        names = sorted(stage.start)
        moments = {
            name: _moment(inputs, number + place, start, stop, stage.start[name])
            for place, name in enumerate(names)
        }
        step, after = stage.run(step, moments, weights)
        for name in names:
            number += 1
            put(number, start, after[name])
    put(0, start, weights + step)
    return squares


def _read(
    members: Sequence[WeightedUpdate], start: int, stop: int, squares: list[float]
) -> Iterator[Tensor]:
    for member in members:
        block = member.row.read(start, stop)
        squares.append(_square_sum(block))
        yield block if member.factor == 1 else block * member.factor


def _moment(inputs: FoldInputs, number: int, start: int, stop: int, first: float) -> Tensor:
    if inputs.moments is None:
        return torch.full((stop - start,), first)
    skipped = number * inputs.row.elements
    return inputs.moments.read(skipped + start, skipped + stop)


def _square_sum(block: Tensor) -> float:
    quick = float(torch.dot(block, block))
    if block.dtype == torch.float64 or TRUSTED[0] < quick < TRUSTED[1]:
        return quick
    exact = block.double()  # squares of fp32 numbers always fit
    return float(torch.dot(exact, exact))


def norm(squares: Sequence[float]) -> float:
    return math.sqrt(math.fsum(squares))
