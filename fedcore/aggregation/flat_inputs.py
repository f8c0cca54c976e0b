"""What an elementwise fold reads: model, server state and updates, each as one row of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcore.aggregation.block_pass import FoldInputs, norm, square_sums
from fedcore.aggregation.flat_file import FlatFile, FlatLayout, Shapes, Span, open_flat
from fedcore.aggregation.fold_task import ServerFiles
from fedcore.aggregation.strategies import Strategy, build
from fedcore.aggregation.update_files import Key, UpdateFile, WeightedUpdate, open_updates
from fedcore.errors import FoldError
from fedcore.formats.frame_header import read_header
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import factor_of
from fedcore.wire.frame import Layout
from fedcore.wire.update import open_update


@dataclass(frozen=True)
class Shard:
    """A range [start, stop) of the row to fold, and the factor of each update."""

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

    A ``shard`` opens what its range needs, and brings the factors. Raises as ``open_updates``.
    """
    strategy = strategy or build(spec)
    layout = trained_layout(spec, read_header(before.model).shapes)
    opened = open_flat_updates(strategy, layout, updates, folder, shard)
    moments = None
    if before.state is not None:
        header = read_header(before.state)
        if header.meta.get("strategy") != strategy.name:
            raise FoldError(
                f"the server state belongs to {header.meta.get('strategy')}, not to "
                f"{strategy.name}; start without it"
            )
        shapes = {key: tuple(shape) for key, (_, shape) in state_layout(strategy, layout).items()}
        if any(key not in header.shapes or header.shapes[key] != shapes[key] for key in shapes):
            raise FoldError("the server state does not fit the global weights; start without it")
        if shapes:
            moments = open_flat(before.state, FlatLayout.of(shapes), folder)
    return FoldInputs(strategy, layout, open_flat(before.model, layout, folder), moments, opened)


def trained_layout(spec: JobSpec, shapes: Shapes) -> FlatLayout:
    """The numbers that train: all but frozen LoRA factors and merged base updates."""
    frozen = ("MA", "MB", spec.adapter.averaging.frozen_factor)
    trained = {name: shape for name, shape in shapes.items() if factor_of(name)[1] not in frozen}
    return FlatLayout.of(trained)


def open_flat_updates(
    strategy: Strategy,
    layout: FlatLayout,
    updates: Sequence[UpdateFile],
    folder: Path,
    shard: Shard | None = None,
) -> tuple[WeightedUpdate[FlatFile], ...]:
    """Open updates as rows of ``layout``. Raises as ``open_updates``."""
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    span = shard.span if shard else (0, layout.elements)
    needs_norm = strategy.needs_norms and shard is None  # it takes a pass over the update

    def opener(update: UpdateFile) -> tuple[FlatFile, float]:
        if set(read_header(update.path).tensors) - set(shapes):
            open_update(update.path, shapes)  # raises WireError: a name belongs to nothing
        file = open_flat(update.path, layout, folder, lambda path: open_update(path, shapes), span)
        return file, norm(square_sums(file, layout.elements)) if needs_norm else 0.0

    return open_updates(strategy, updates, opener, shard.factors if shard else None)


def state_layout(strategy: Strategy, layout: FlatLayout) -> Layout:
    """The server state's tensors: sorted by name they are one row of moments after another."""
    keys = [
        f"{number}.{optimizer.name}.{moment}"
        for number, optimizer in enumerate(strategy.optimizers)
        for moment in sorted(optimizer.start)
    ]
    shapes = list(zip(layout.names, layout.shapes, strict=True))
    return {f"{key} {name}": ("F32", shape) for key in keys for name, shape in shapes}


def state_meta(strategy: Strategy, before: Path | None) -> dict[str, str]:
    """The metadata of the next server state: it has seen one fold more than the one before."""
    return {"kind": "state", "strategy": strategy.name, "rounds": str(rounds_of(before) + 1)}


def rounds_of(state: Path | None) -> int:
    """How many folds a server state has seen."""
    return int(read_header(state).meta["rounds"]) if state else 0
