"""Costs of LoRA adapters on a frozen base."""

from __future__ import annotations

from fedcore.architecture.matrices import matrices
from fedcore.plan.cost.kinds.contract import AdapterCost, Training
from fedcore.plan.cost.step_flops import StepCost, lora_cost, ranked_cost


def trained(training: Training) -> int:
    """Weights of A and B of every adapted matrix."""
    if not training.ranks:
        return training.sizes.lora_parameters(training.rank, training.targets)
    rows = zip(matrices(training.sizes), training.ranks, strict=True)
    return sum(row.per_rank * max(0, rank) for row, rank in rows)


def step(training: Training, bottleneck_width: int = 0) -> StepCost:
    """FLOPs of a step, with bottlenecks of that width beside the LoRA (0: there are none)."""
    if training.ranks:
        return ranked_cost(training.sizes, training.ranks, bottleneck_width)
    return lora_cost(training.sizes, training.rank, training.targets, bottleneck_width)


def _update(training: Training) -> int:
    """Weights of B alone where A keeps its start, and of both factors elsewhere."""
    if training.adapter.averaging.frozen_factor is None:
        return trained(training)
    rows = matrices(training.sizes)
    ranks = training.ranks or [training.rank * (row.kind in training.targets) for row in rows]
    return sum(row.outputs * max(0, rank) for row, rank in zip(rows, ranks, strict=True))


def _encoder_is_fixed(training: Training) -> bool:
    rows = zip(matrices(training.sizes), training.ranks)  # noqa: B905 - no row where all are alike
    return bool(training.ranks) and not any(row.encodes and rank >= 0 for row, rank in rows)


ROW = AdapterCost(
    parameters=lambda sizes, adapter: sizes.lora_parameters(adapter.rank, adapter.targets),
    trained=trained,
    served=trained,
    update=_update,
    step=step,
    saved=lambda _training: "lora",
    encoder_is_fixed=_encoder_is_fixed,
)
