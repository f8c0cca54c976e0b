"""The elementwise fold: what trains, coordinate by coordinate, through filters, fold and optimizer.

Updates are taken in the order of their keys, never of their arrival, and the numbers in fixed
blocks. So a fold repeated after a crash, on another machine, on more threads or in shards gives the
same bytes. In memory are a few blocks of each update at a time, as pages of their files.
"""

from __future__ import annotations

from contextlib import ExitStack

from torch import Tensor

from fedcore.aggregation.block_pass import FoldInputs, fold_range, norm
from fedcore.aggregation.flat_inputs import open_inputs, state_layout, state_meta
from fedcore.aggregation.flat_writer import FlatWriter
from fedcore.aggregation.fold_task import FoldReport, FoldTask, NextFiles, ServerFiles
from fedcore.wire.frame import FrameInfo, FrameReader


def open_task(task: FoldTask) -> FoldInputs:
    """The inputs of a whole task. Raises as ``open_updates``."""
    folder = task.after.model.parent
    return open_inputs(task.spec, task.before, task.updates, folder, strategy=task.strategy)


def fold_inputs(task: FoldTask, inputs: FoldInputs) -> FoldReport:
    """Fold opened inputs. The model that is written contains the tensors of their layout only."""
    with ServerWriter(inputs, task.before, task.after) as writer:
        squares = fold_range(inputs, (0, inputs.layout.elements), writer.put, task.threads)
    norms = [norm(sums) for sums in squares]
    return FoldReport.of(inputs.updates, norms, None, writer.frames)


class ServerWriter:
    """Writes what a fold makes, in any order: the next global model, the next server state."""

    def __init__(self, inputs: FoldInputs, before: ServerFiles, after: NextFiles) -> None:
        layout, strategy = inputs.layout, inputs.strategy
        model_meta = dict(FrameReader(before.model).meta)
        self._elements = layout.elements
        self._model = FlatWriter(after.model, layout.frame_layout, model_meta)
        self._state = FlatWriter(
            after.state, state_layout(strategy, layout), state_meta(strategy, before.state)
        )
        self._stack = ExitStack()

    def __enter__(self) -> ServerWriter:
        self._stack.enter_context(self._state)
        self._stack.enter_context(self._model)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def put(self, row: int, start: int, block: Tensor) -> None:
        """Write a block of a row, from place ``start`` on: row 0 is the model, then the moments."""
        if row:
            self._state.put((row - 1) * self._elements + start, block)
        else:
            self._model.put(start, block)

    @property
    def frames(self) -> tuple[FrameInfo, FrameInfo]:
        assert self._model.info is not None and self._state.info is not None
        return self._model.info, self._state.info
