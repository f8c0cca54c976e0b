"""What the planner needs to know of an adapter kind, and the training that it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fedcore.architecture.sizes import FP32_BYTES, Architecture
from fedcore.plan.cost.step_flops import StepCost
from fedcore.spec.options.adapter import AdapterSpec

BF16_BYTES = 2.0


class Training(Protocol):
    """A job's training on one device (``fedcore.plan.cost.workload.Workload``).

    ``adapter`` holds the options of what trains. ``rank``, ``targets`` and ``ranks`` (the rank of
    each matrix if they differ) are those of the LoRA that trains here, which may be the device's
    personal one; without any, ``rank`` is 0. ``base_bytes``: of one frozen weight.
    """

    @property
    def sizes(self) -> Architecture: ...
    @property
    def adapter(self) -> AdapterSpec: ...
    @property
    def rank(self) -> int: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def ranks(self) -> tuple[int, ...]: ...
    @property
    def base_bytes(self) -> float: ...
    @property
    def inner(self) -> int: ...
    @property
    def trained(self) -> int: ...


def encoder_layers(training: Training) -> int:
    return training.sizes.encoder_layers


def decoder_layers(training: Training) -> int:
    return training.sizes.decoder_layers


def fp32_adapters(training: Training) -> float:
    """Adapters are fp32 whatever the base is kept in."""
    return FP32_BYTES * training.trained


def nothing(training: Training) -> float:
    del training
    return 0.0


@dataclass(frozen=True)
class AdapterCost:
    """Sizes, FLOPs and memory of what one kind trains, each as a function of the training.

    ``parameters``: weights of a job's artefact, by the model's sizes and the job's options.
    ``trained``: weights that learn on this device, those that it keeps for itself included.
    ``served``: of these, weights that travel down. ``update``: weights that travel up.
    ``step``: needed FLOPs. ``saved``: the key of the coefficients in ``KernelCoefficients.saved``.
    ``encoder_layers``, ``decoder_layers``: those whose activations the backward pass keeps.
    ``encoder_is_fixed``: whether nothing in the encoder trains. ``block_numbers``: numbers kept per
    token of each feed-forward block beside the block's own. ``beside_base``: bytes of fp32 weights
    that the base does not hold. ``bf16_copies``: bytes of the copies that products of a bf16
    training read. ``trains_head``: whether the output layer has a gradient.
    """

    parameters: Callable[[Architecture, AdapterSpec], int]
    trained: Callable[[Training], int]
    served: Callable[[Training], int]
    update: Callable[[Training], int]
    step: Callable[[Training], StepCost]
    saved: Callable[[Training], str]
    encoder_is_fixed: Callable[[Training], bool]
    encoder_layers: Callable[[Training], int] = encoder_layers
    decoder_layers: Callable[[Training], int] = decoder_layers
    block_numbers: Callable[[Training], float] = nothing
    beside_base: Callable[[Training], float] = fp32_adapters
    bf16_copies: Callable[[Training], float] = nothing
    trains_head: bool = False
