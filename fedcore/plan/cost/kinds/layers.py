"""Costs of training the last decoder layers whole: the backward pass ends at the first of them."""

from __future__ import annotations

from fedcore.architecture.sizes import FP32_BYTES
from fedcore.plan.cost.kinds.contract import BF16_BYTES, AdapterCost, Training
from fedcore.plan.cost.step_flops import layers_cost


def _trained(training: Training) -> int:
    return training.sizes.layers_parameters(training.adapter.last_layers)


def _beside_base(training: Training) -> float:
    """Layers that train are fp32 and stand in the base's place."""
    return (FP32_BYTES - training.base_bytes) * training.trained


ROW = AdapterCost(
    parameters=lambda sizes, adapter: sizes.layers_parameters(adapter.last_layers),
    trained=_trained,
    served=_trained,
    update=_trained,
    step=lambda training: layers_cost(training.sizes, training.adapter.last_layers),
    saved=lambda _training: "full",
    encoder_is_fixed=lambda _training: True,
    encoder_layers=lambda _training: 0,
    decoder_layers=lambda training: training.adapter.last_layers,
    beside_base=_beside_base,
    bf16_copies=lambda training: BF16_BYTES * training.trained,
)
