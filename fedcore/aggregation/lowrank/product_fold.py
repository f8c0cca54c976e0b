"""The folds of a job's averaging rule (``LowRankRule``), one function for each.

``fedit``, ``ffa`` and ``fedex`` average entries by the elementwise fold, with any server optimizer;
so does, as ``fedit``, whatever has no low-rank factors. ``flexlora`` and ``stack`` average the
products s B A, matrix by matrix; ``fedex`` visits each matrix after its averaging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from fedcore.aggregation.elementwise import fold_inputs, open_task
from fedcore.aggregation.flat_inputs import rounds_of, state_meta
from fedcore.aggregation.fold_task import FoldReport, FoldTask
from fedcore.aggregation.lowrank.averaging_error import factor_error, relative_error
from fedcore.aggregation.lowrank.device_factors import (
    AdaptedMatrix,
    GlobalAdapter,
    LowRankUpdate,
    open_lowrank,
    trained_products,
)
from fedcore.aggregation.lowrank.products import Product
from fedcore.aggregation.lowrank.rules import (
    MatrixError,
    ServedAdapter,
    mean_product,
    moved,
    redistributed,
    stacked,
    with_residual,
)
from fedcore.aggregation.update_files import WeightedUpdate, open_updates
from fedcore.compute.determinism import torch_threads
from fedcore.model.kinds.lora import initial_lora
from fedcore.seeds import derive
from fedcore.spec.options.lowrank import LowRankRule
from fedcore.wire.frame import FrameReader, write_frame

# The base's merged update, W, a fresh (B, A), the scale that is served.
Serve = Callable[[Product, Product, tuple[Tensor, Tensor], float], ServedAdapter]


@dataclass
class _NextAdapter:
    """The tensors of the next global adapter, and the error of each matrix."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    errors: list[MatrixError] = field(default_factory=list)

    def put(self, matrix: AdaptedMatrix, served: ServedAdapter) -> None:
        self.tensors[matrix.b], self.tensors[matrix.a] = served.b, served.a
        if served.merged.rank:
            up, down = matrix.merged
            self.tensors[up] = served.merged.up.float()
            self.tensors[down] = served.merged.down.float()

    @property
    def error(self) -> float | None:
        """|served - target| / |target| over all matrices."""
        sums = [(error.off**2, error.size**2, error.bound**2) for error in self.errors]
        return (
            relative_error(*(sum(column) for column in zip(*sums, strict=True))) if sums else None
        )


class _ProductInputs:
    """What a fold of products reads: the global adapter, and the updates of all devices."""

    def __init__(self, task: FoldTask) -> None:
        self.adapter = adapter = GlobalAdapter(FrameReader(task.before.model), task.spec)
        self.updates: tuple[WeightedUpdate[LowRankUpdate], ...] = open_updates(
            task.strategy, task.updates, lambda update: open_lowrank(update, task.spec, adapter)
        )

    def target(self, matrix: AdaptedMatrix, rate: float) -> Product | None:
        """Where the server's rate takes this matrix's product; None where nobody trained it."""
        trained = trained_products(self.updates, matrix, self.adapter)
        if not trained:
            return None
        return moved(self.adapter.product(matrix), mean_product(trained), rate)

    def mean_factor(self, name: str) -> Tensor:
        """A factor as the elementwise fold averages it, before the server optimizer; fp64."""
        mean = self.adapter.frame[name].double()
        for update in self.updates:
            mean = mean + update.share * update.factor * update.data.deltas[name].double()
        return mean


def average_entries(task: FoldTask) -> FoldReport:
    """Average what trains entry by entry; of an adapter (FedIT) that is each factor by itself."""
    inputs = open_task(task)
    report = fold_inputs(task, inputs)
    return replace(report, aggregation_error=factor_error(task.spec, inputs, task.before.model))


@contextmanager
def _averaged_factors(task: FoldTask) -> Iterator[tuple[FoldReport, FrameReader]]:
    """The averaged factors in a temporary file, for rules that write the model themselves."""
    path = task.after.model.with_name(f"{task.after.model.name}.row")
    try:
        report = average_entries(replace(task, after=replace(task.after, model=path)))
        yield report, FrameReader(path)
    finally:
        path.unlink(missing_ok=True)


def average_b(task: FoldTask) -> FoldReport:
    """FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): A keeps its start, so B's mean is exact."""
    with _averaged_factors(task) as (report, averaged):
        before = FrameReader(task.before.model)
        frame = write_frame(task.after.model, {**before, **averaged}, before.meta)
    return replace(report, global_frame=frame)


def average_with_residual(task: FoldTask) -> FoldReport:
    """FedEx-LoRA: A and B are averaged apart, and the base takes in what their product misses.

    Under FedAvg's optimizer the model is where the server's rate takes the mean of products. An
    optimizer with moments moves the averaged factors on; the base then takes in what the averaging
    missed, and no more (our choice).
    """
    plain = not any(optimizer.start for optimizer in task.strategy.optimizers)
    rate = task.spec.strategy.server_learning_rate if plain else 1.0
    with _averaged_factors(task) as (report, factors), _deterministic():
        inputs, result = _ProductInputs(task), _NextAdapter()
        adapter = inputs.adapter
        for matrix in adapter.matrices:
            target = inputs.target(matrix, rate)
            assert target is not None, "all devices train the same matrices under fedex"
            b, a = factors[matrix.b], factors[matrix.a]
            mean = (b, a) if plain else (inputs.mean_factor(matrix.b), inputs.mean_factor(matrix.a))
            merged = adapter.merged(matrix)
            served = with_residual(merged, target, *mean, adapter.scale)
            result.errors.append(MatrixError.of(served, merged, target, adapter.scale))
            result.put(matrix, replace(served, b=b, a=a))
        frame = write_frame(task.after.model, result.tensors, adapter.frame.meta)
    return replace(report, global_frame=frame, aggregation_error=result.error)


def fold_products(serve: Serve, task: FoldTask) -> FoldReport:
    """Average products matrix by matrix; ``serve`` factors the mean W into what devices get.

    The work is small, and sums on one thread have one order: ``task.threads`` is not used.
    """
    with _deterministic():
        inputs, result = _ProductInputs(task), _NextAdapter()
        adapter = inputs.adapter
        # An adapter as before any training, of the served rank; a new draw in every round.
        shapes = {name: shape for name, shape in adapter.frame.shapes.items() if ".lora_" in name}
        round_number = rounds_of(task.before.state) + 1
        start = initial_lora(shapes, derive(task.spec.seed, "adapter", round_number))
        for matrix in adapter.matrices:
            merged = adapter.merged(matrix)
            target = inputs.target(matrix, task.spec.strategy.server_learning_rate)
            if target is None:  # nobody trained it, so it stays as it is
                factors = adapter.factors(matrix)
                result.put(matrix, ServedAdapter(factors[matrix.b], factors[matrix.a], merged))
                continue
            served = serve(merged, target, (start[matrix.b], start[matrix.a]), adapter.scale)
            result.errors.append(MatrixError.of(served, merged, target, adapter.scale))
            result.put(matrix, served)
        state = write_frame(task.after.state, {}, state_meta(task.strategy, task.before.state))
        frame = write_frame(task.after.model, result.tensors, adapter.frame.meta)
    norms = [update.norm for update in inputs.updates]
    return FoldReport.of(inputs.updates, norms, result.error, (frame, state))


@contextmanager
def _deterministic() -> Iterator[None]:
    """One thread, no gradients."""
    with torch_threads(1), torch.no_grad():
        yield


RULE_FOLDS: Mapping[LowRankRule, Callable[[FoldTask], FoldReport]] = {
    LowRankRule.FEDIT: average_entries,
    LowRankRule.FFA: average_b,
    LowRankRule.FEDEX: average_with_residual,
    LowRankRule.FLEXLORA: partial(fold_products, redistributed),
    LowRankRule.STACK: partial(fold_products, stacked),
}
