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

from fedcore.aggregation.flat_file import FlatFile, FlatLayout, Numbers, Span
from fedcore.aggregation.strategies import Strategy
from fedcore.aggregation.update_files import UpdatesRefused, WeightedUpdate
from fedcore.compute.determinism import torch_threads

# 1 MiB of fp32: an update's block and the sum fit a core's cache together, and work on one takes
# long enough that threads seldom wait for each other's Python.
BLOCK = 1 << 18
MAPPED_BYTES = 64 << 20  # of all files together, before pages are handed back
# Beyond these a sum of squares in fp32 may have lost numbers or overflowed: it is taken again.
TRUSTED = (1e-30, 3e38)

Put = Callable[[int, int, Tensor], None]  # row (0: model, then moments), first place, numbers


@dataclass(frozen=True)
class FoldInputs:
    """All that an elementwise fold reads. ``moments``: rows of the server state, None before it."""

    strategy: Strategy
    layout: FlatLayout
    before: Numbers
    moments: FlatFile | None
    updates: tuple[WeightedUpdate[FlatFile], ...]

    @property
    def open_rows(self) -> int:
        """How many rows are read next to each other."""
        return 1 + len(self.updates) + self.moment_rows * (self.moments is not None)

    @property
    def moment_rows(self) -> int:
        return sum(len(optimizer.start) for optimizer in self.strategy.optimizers)

    def moment(self, row: int, span: Span, initial: float) -> Tensor:
        """A block of a moment's row; ``initial`` everywhere where there is no state yet."""
        if self.moments is None:
            return torch.full((span[1] - span[0],), initial)
        first = row * self.layout.elements
        return self.moments.read(first + span[0], first + span[1])

    def release(self, start: int, stop: int) -> None:
        for file in (self.before, *(update.data for update in self.updates)):
            file.release(start, stop)
        if self.moments is not None:
            for row in range(self.moment_rows):
                first = row * self.layout.elements
                self.moments.release(first + start, first + stop)


def fold_range(inputs: FoldInputs, span: Span, put: Put, threads: int = 0) -> list[list[float]]:
    """Fold places [start, stop) of the row; returns each update's sum of squares of each block.

    ``start`` must be a multiple of BLOCK. Raises UpdatesRefused for updates that hold NaN or
    infinity; what was put is then worthless.
    """
    squares = [[0.0] * block_count(span) for _ in inputs.updates]

    def work(number: int, start: int, stop: int) -> None:
        for place, total in enumerate(_fold_block(inputs, start, stop, put)):
            squares[place][number] = total

    _each_block(span, work, _Release(inputs.release, inputs.open_rows), threads)
    reasons = {}
    for update, sums in zip(inputs.updates, squares, strict=True):
        number = next((n for n, total in enumerate(sums) if not math.isfinite(total)), None)
        if number is None:
            continue
        start = span[0] + number * BLOCK
        block = update.data.read(start, min(start + BLOCK, inputs.layout.elements))
        place = start + int(torch.isfinite(block).logical_not().nonzero()[0])
        name = inputs.layout.name_at(place)
        reasons[update.key] = f"tensor {name!r} holds NaN or infinity; the update is refused"
    if reasons:
        raise UpdatesRefused(reasons)
    return squares


def square_sums(row: FlatFile, elements: int, threads: int = 0) -> list[float]:
    """The sum of squares of each block, in fp64; what a filter needs before the fold."""
    span = (0, elements)
    sums = [0.0] * block_count(span)

    def work(number: int, start: int, stop: int) -> None:
        sums[number] = _square_sum(row.read(start, stop).double())

    _each_block(span, work, _Release(row.release, 1), threads)
    return sums


def block_count(span: Span) -> int:
    return -(-(span[1] - span[0]) // BLOCK)


@dataclass(frozen=True)
class _Release:
    """Hands pages back behind the cursor, in pieces: each time interrupts the other cores."""

    run: Callable[[int, int], None]
    rows: int

    def behind(self, number: int, span: Span) -> None:
        """After block ``number`` of the span: the piece before the one it ends, if it ends one."""
        piece = max(1, MAPPED_BYTES // (self.rows * BLOCK * 4))
        stop = span[0] + (number + 1 - piece) * BLOCK
        if (number + 1) % piece == 0 and stop > span[0]:
            self.run(stop - piece * BLOCK, stop)


def _each_block(
    span: Span, work: Callable[[int, int, int], None], release: _Release, threads: int
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

    count = min(threads or len(os.sched_getaffinity(0)), block_count(span))
    with torch_threads(1), torch.no_grad():
        if count <= 1:
            run()
            return
        with ThreadPoolExecutor(count) as pool:
            for running in [pool.submit(run) for _ in range(count)]:
                running.result()


def _fold_block(inputs: FoldInputs, start: int, stop: int, put: Put) -> list[float]:
    """Fold one block and put its rows; returns each update's sum of squares."""
    squares: list[float] = []
    step = torch.empty(stop - start)
    shares = [update.share for update in inputs.updates]
    inputs.strategy.fold.run(shares, _filtered_blocks(inputs, start, stop, squares), step)
    weights = inputs.before.read(start, stop)
    row = 0
    for optimizer in inputs.strategy.optimizers:
        names = sorted(optimizer.start)
        moments = {
            name: inputs.moment(row + place, (start, stop), optimizer.start[name])
            for place, name in enumerate(names)
        }
        step, new_moments = optimizer.run(step, moments, weights)
        for name in names:
            row += 1
            put(row, start, new_moments[name])
    put(0, start, weights + step)
    return squares


def _filtered_blocks(
    inputs: FoldInputs, start: int, stop: int, squares: list[float]
) -> Iterator[Tensor]:
    """One block of each update times its factor; appends its sum of squares to ``squares``."""
    for update in inputs.updates:
        block = update.data.read(start, stop)
        squares.append(_square_sum(block))
        yield block if update.factor == 1 else block * update.factor


def _square_sum(block: Tensor) -> float:
    quick = float(torch.dot(block, block))
    if block.dtype == torch.float64 or TRUSTED[0] < quick < TRUSTED[1]:
        return quick
    exact = block.double()  # squares of fp32 numbers always fit
    return float(torch.dot(exact, exact))


def norm(squares: Sequence[float]) -> float:
    return math.sqrt(math.fsum(squares))
