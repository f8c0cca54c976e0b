"""Costs of training every weight: the base is fp32, and bf16 products read copies of it."""

from __future__ import annotations

from fedcore.plan.cost.kinds.contract import BF16_BYTES, AdapterCost, Training, nothing
from fedcore.plan.cost.step_flops import full_cost


def _trained(training: Training) -> int:
    return training.sizes.parameters()


def _bf16_copies(training: Training) -> float:
    """Of the matrices inside the layers and of the output layer."""
    head = training.sizes.vocab * training.sizes.d_model
    return BF16_BYTES * (training.inner + head)


ROW = AdapterCost(
    parameters=lambda sizes, _adapter: sizes.parameters(),
    trained=_trained,
    served=_trained,
    update=_trained,
    step=lambda training: full_cost(training.sizes),
    saved=lambda _training: "full",
    encoder_is_fixed=lambda _training: False,
    beside_base=nothing,
    bf16_copies=_bf16_copies,
    trains_head=True,
)
