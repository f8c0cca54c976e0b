"""Costs of bottleneck adapters, beside which a device may train a LoRA of its own."""

from __future__ import annotations

from fedcore.plan.cost.kinds import lora
from fedcore.plan.cost.kinds.contract import AdapterCost, Training


def _bottlenecks(training: Training) -> int:
    return training.sizes.bottleneck_parameters(training.adapter.width)


def _encoder_layers(training: Training) -> int:
    """Nothing is kept below the first bottleneck unless a LoRA trains there."""
    return training.sizes.encoder_layers - (0 if training.rank else 1)


def _block_numbers(training: Training) -> float:
    """Its input, and what is between its two matrices before and after GELU."""
    return training.sizes.d_model + 2 * training.adapter.width


ROW = AdapterCost(
    parameters=lambda sizes, adapter: sizes.bottleneck_parameters(adapter.width),
    trained=lambda training: lora.trained(training) + _bottlenecks(training),
    served=_bottlenecks,
    update=_bottlenecks,
    step=lambda training: lora.step(training, training.adapter.width),
    saved=lambda training: "lora" if training.rank else "bottleneck",
    encoder_is_fixed=lambda _training: False,
    encoder_layers=_encoder_layers,
    block_numbers=_block_numbers,
)
