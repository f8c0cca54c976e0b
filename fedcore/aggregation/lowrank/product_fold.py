"""Rules of low-rank averaging on files: what is folded as numbers, and what becomes of products.

``fedit``, ``ffa`` and ``fedex`` average the entries of what trains by the ordinary fold, with any
server optimizer; ``flexlora`` and ``stack`` average products. None of them but ``fedit`` is ever
shared out in shards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedcore.aggregation.elementwise import Paths, fold_row
from fedcore.aggregation.flat_inputs import rounds_of, shares_of, weighed
from fedcore.aggregation.fold_outputs import FoldReport
from fedcore.aggregation.folds import Strategy
from fedcore.aggregation.lowrank.averaging_error import relative
from fedcore.aggregation.lowrank.device_factors import (
    AdaptedMatrix,
    GlobalAdapter,
    LowRankUpdate,
    norm_of,
    parts,
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
from fedcore.aggregation.update_files import UpdateFile, UpdatesRefused
from fedcore.compute.device import torch_threads
from fedcore.errors import WireError
from fedcore.model.adapters import initial_lora
from fedcore.seeds import derive
from fedcore.spec.job import JobSpec
from fedcore.spec.options.lowrank import LowRankRule
from fedcore.spec.overrides import trained_shapes
from fedcore.wire.frame import FrameReader, write_frame
from fedcore.wire.update import open_update

Rule = Callable[[JobSpec, Paths, Sequence[UpdateFile], int, Strategy], FoldReport]
# What the base holds, W, a fresh (B, A), the scale that is served.
Serve = Callable[[Product, Product, tuple[Tensor, Tensor], float], ServedAdapter]


@dataclass
class _Made:
    """The next global weights as they come about, and how far each matrix is off."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    misses: list[MatrixError] = field(default_factory=list)

    def put(self, matrix: AdaptedMatrix, served: ServedAdapter) -> None:
        self.tensors[matrix.b], self.tensors[matrix.a] = served.b, served.a
        if served.merged.rank:
            up, down = matrix.merged
            self.tensors[up] = served.merged.left.float()
            self.tensors[down] = served.merged.right.float()

    @property
    def error(self) -> float | None:
        """|served - target| / |target| over all matrices."""
        sums = [(miss.off**2, miss.size**2, miss.bound**2) for miss in self.misses]
        return relative(*(sum(column) for column in zip(*sums, strict=True))) if sums else None


@dataclass(frozen=True)
class _Fold:
    """What a rule sees: the job, the weights before, the devices, a fresh start for adapters."""

    spec: JobSpec
    strategy: Strategy
    before: GlobalAdapter
    devices: list[LowRankUpdate]
    start: Mapping[str, Tensor]

    def target(self, matrix: AdaptedMatrix, rate: float) -> Product | None:
        """Where the server's rate takes this matrix's product; None where nobody trained it."""
        found = parts(self.devices, matrix, self.before)
        if not found:
            return None
        return moved(self.before.product(matrix), mean_product(found), rate)


def _frozen(
    spec: JobSpec,
    paths: Paths,
    updates: Sequence[UpdateFile],
    threads: int,
    strategy: Strategy,
) -> FoldReport:
    """FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): A keeps its start, so B's mean is exact."""
    with ExitStack() as stack:
        row = _beside(paths, stack)
        found = fold_row(spec, row, updates, threads, strategy)
        before, folded = FrameReader(paths.before.model), FrameReader(row.weights)
        frame = write_frame(paths.weights, {**before, **folded}, before.meta)
    return replace(found, global_frame=frame)


def _residual(
    spec: JobSpec,
    paths: Paths,
    updates: Sequence[UpdateFile],
    threads: int,
    strategy: Strategy,
) -> FoldReport:
    """FedEx-LoRA: A and B are averaged apart, and the base takes in what that misses.

    Under FedAvg's optimizer the model is where the server's rate takes the mean of products. An
    optimizer with moments moves the averaged factors on; the base then takes in what the averaging
    missed, and no more (our choice).
    """
    began = time.perf_counter()
    with ExitStack() as stack:
        row = _beside(paths, stack)
        found = fold_row(spec, row, updates, threads, strategy)
        stack.enter_context(_deterministic())
        fold, _ = _opened(spec, paths, updates, strategy)
        made, folded = _Made(), FrameReader(row.weights)
        for matrix in fold.before.matrices:
            _correct(fold, matrix, folded, made)
        frame = write_frame(paths.weights, made.tensors, fold.before.frame.meta)
    seconds = time.perf_counter() - began
    return replace(found, global_frame=frame, aggregation_error=made.error, seconds=seconds)


def _correct(fold: _Fold, matrix: AdaptedMatrix, folded: Mapping[str, Tensor], made: _Made) -> None:
    plain = not any(stage.start for stage in fold.strategy.stages)
    target = fold.target(matrix, fold.spec.strategy.server_learning_rate if plain else 1.0)
    assert target is not None, "all devices train the same matrices under fedex"
    b, a = folded[matrix.b], folded[matrix.a]
    averaged = (b, a) if plain else _mean_factors(fold, matrix)
    merged, scale = fold.before.merged(matrix), fold.before.scale
    served = with_residual(merged, target, *averaged, scale)
    made.misses.append(MatrixError.of(served, merged, target, scale))
    made.put(matrix, replace(served, b=b, a=a))


def _mean_factors(fold: _Fold, matrix: AdaptedMatrix) -> tuple[Tensor, Tensor]:
    """B and A as the fold averages them, before the server's optimizer."""

    def mean(name: str) -> Tensor:
        found = fold.before.frame[name].double()
        for device in fold.devices:
            found = found + device.share * device.factor * device.deltas[name].double()
        return found

    return mean(matrix.b), mean(matrix.a)


def _products(serve: Serve) -> Rule:
    """A fold of products; ``serve`` makes of W what is served."""

    def run(
        spec: JobSpec,
        paths: Paths,
        updates: Sequence[UpdateFile],
        threads: int,
        strategy: Strategy,
    ) -> FoldReport:
        del threads  # the work is small, and sums on one thread have one order
        began = time.perf_counter()
        with _deterministic():
            fold, norms = _opened(spec, paths, updates, strategy)
            made = _Made()
            for matrix in fold.before.matrices:
                _serve(fold, matrix, serve, made)
            rounds = str(rounds_of(paths.before.state) + 1)
            meta = {"kind": "state", "strategy": strategy.name, "rounds": rounds}
            state = write_frame(paths.state, {}, meta)
            frame = write_frame(paths.weights, made.tensors, fold.before.frame.meta)
        weights: dict[int, float] = {}
        for device in fold.devices:
            weights[device.key[0]] = weights.get(device.key[0], 0.0) + device.share
        size = sum(update.path.stat().st_size for update in updates)
        seconds = time.perf_counter() - began
        return FoldReport(norms, weights, made.error, seconds, size, frame, state)

    return run


def _serve(fold: _Fold, matrix: AdaptedMatrix, serve: Serve, made: _Made) -> None:
    merged, scale = fold.before.merged(matrix), fold.before.scale
    target = fold.target(matrix, fold.spec.strategy.server_learning_rate)
    if target is None:  # nobody trained it, so it stays as it is
        kept = fold.before.factors(matrix)
        made.put(matrix, ServedAdapter(kept[matrix.b], kept[matrix.a], merged))
        return
    served = serve(merged, target, (fold.start[matrix.b], fold.start[matrix.a]), scale)
    made.misses.append(MatrixError.of(served, merged, target, scale))
    made.put(matrix, served)


def _opened(
    spec: JobSpec, paths: Paths, updates: Sequence[UpdateFile], strategy: Strategy
) -> tuple[_Fold, dict[int, float]]:
    """All that a rule reads, and each slot's norm. Raises as ``fold_files`` does."""
    frame = FrameReader(paths.before.model)
    shares = shares_of(strategy, updates)
    found = sorted((item for item in updates if item.key in shares), key=lambda item: item.key)
    deltas: list[Mapping[str, Tensor]] = []
    norms: list[float] = []
    refused = {}
    for item in found:
        try:
            deltas.append(open_update(item.path, trained_shapes(item.spec or spec, frame.shapes)))
            norms.append(norm_of(deltas[-1]))
        except WireError as error:
            refused[item.key] = str(error)
    if refused:
        raise UpdatesRefused(refused)
    factors = weighed(strategy, found, norms, shares)
    devices = [
        LowRankUpdate(item.key, item.spec or spec, read, shares[item.key], factors[item.key])
        for item, read in zip(found, deltas, strict=True)
    ]
    shapes = {name: side for name, side in frame.shapes.items() if ".lora_" in name}
    start = initial_lora(shapes, derive(spec.seed, "adapter", rounds_of(paths.before.state) + 1))
    sizes = {item.slot: norm for item, norm in zip(found, norms, strict=True)}
    return _Fold(spec, strategy, GlobalAdapter(frame, spec), devices, start), sizes


def _beside(paths: Paths, stack: ExitStack) -> Paths:
    """The same with a file of their own for the numbers that are folded; gone with the stack."""
    row = paths.weights.with_name(f"{paths.weights.name}.row")
    stack.callback(row.unlink, missing_ok=True)
    return replace(paths, weights=row)


def _deterministic() -> ExitStack:
    """One thread, no gradients."""
    stack = ExitStack()
    stack.enter_context(torch_threads(1))
    stack.enter_context(torch.no_grad())
    return stack


RULES: Mapping[LowRankRule, Rule] = {
    LowRankRule.FEDIT: fold_row,
    LowRankRule.FFA: _frozen,
    LowRankRule.FEDEX: _residual,
    LowRankRule.FLEXLORA: _products(redistributed),
    LowRankRule.STACK: _products(stacked),
}
