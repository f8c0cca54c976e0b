"""Seconds of an optimizer step by phase, from FLOPs, bytes and the rates of the machine.

Products and element-wise batch do not overlap in eager mode, so their times add: FLOPs at the rate
that products of the model's shapes reach, bytes at the memory's, and a fixed cost for each call.
A measured MFU of the same device wins over all of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.architecture.sizes import FP32_BYTES
from fedcore.hardware.profile import Hardware
from fedcore.plan.cost.coefficients import (
    CALLS_PER_LAYER,
    DEQUANTISE_BYTES,
    GENERATION_SLOWDOWN,
    LOAD_S_PER_TOKEN,
    LOSS_PASSES,
    OPTIMIZER_PASSES,
    SAVED_PASSES,
    SHAPE_SHARE,
    KernelCoefficients,
)
from fedcore.plan.cost.flops import Cost
from fedcore.plan.cost.memory import layer_numbers
from fedcore.plan.cost.workload import DECODER_LAYER, BatchShape, Workload

LAYER = "linear"  # prefix of the measured kernels that are products of a layer
PHASES = ("load_s", "forward_s", "loss_s", "backward_s", "optimizer_s")


@dataclass(frozen=True)
class Terms:
    """Cost terms before the coefficients: product seconds, memory seconds, operator calls."""

    product_s: float = 0.0
    memory_s: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Terms) -> Terms:
        return Terms(
            self.product_s + other.product_s,
            self.memory_s + other.memory_s,
            self.calls + other.calls,
        )

    def __mul__(self, factor: float) -> Terms:
        return Terms(factor * self.product_s, factor * self.memory_s, factor * self.calls)

    def seconds(self, kernels: KernelCoefficients) -> float:
        products = self.product_s / kernels.product
        return products + kernels.passes * self.memory_s + kernels.call_s * self.calls


@dataclass(frozen=True)
class Step:
    """Seconds by phase, needed FLOPs (without padding) and bytes of memory traffic of a step."""

    phases: Mapping[str, float]
    flops: float
    moved: float
    peak_flops: float

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())

    @property
    def mfu(self) -> float:
        return self.flops / (self.seconds * self.peak_flops)

    @property
    def flops_per_byte(self) -> float:
        return self.flops / self.moved

    def slower(self, factor: float) -> Step:
        """The same step with the seconds of every phase multiplied by ``factor``."""
        phases = {name: value * factor for name, value in self.phases.items()}
        return Step(phases, self.flops, self.moved, self.peak_flops)


def product_rate(hardware: Hardware, precision: str) -> float | None:
    """FLOP/s of products at the model's shapes: measured, else a share of the peak."""
    kernels = [row for row in hardware.kernels if row.name.startswith(LAYER)]
    measured = [row.flops_per_s for row in kernels if row.precision == precision]
    if measured:
        return statistics.median(measured)
    peak = hardware.peak_flops.get(precision)
    return SHAPE_SHARE * peak if peak else None


def step(
    workload: Workload,
    hardware: Hardware,
    batch: BatchShape,
    padded: BatchShape | None = None,
    parts: int = 1,
) -> Step | None:
    """One optimizer step of ``parts`` micro-batches of ``batch``; None for an unmeasured machine.

    ``padded``: what plain kernels compute on instead.
    """
    rate, bandwidth = product_rate(hardware, workload.precision), hardware.bandwidth_bps
    peak = hardware.peak_flops.get(workload.precision)
    if rate is None or peak is None or bandwidth is None:
        return None
    computed = padded if padded is not None and workload.kernels == "plain" else batch
    by_phase = terms(workload, computed, parts, rate, bandwidth)
    phases = {name: part.seconds(workload.coefficients) for name, part in by_phase.items()}
    moved = bandwidth * sum(part.memory_s for part in by_phase.values())
    needed = parts * _flops(workload.cost.training, batch)
    tokens = parts * batch.examples * (batch.source + batch.target)
    return Step({"load_s": tokens * LOAD_S_PER_TOKEN, **phases}, needed, moved, peak)


def evaluation_s(workload: Workload, batch: BatchShape, speed: Step) -> float:
    """Seconds to generate summaries of the batch's examples, from the speed of training."""
    flops = _flops(workload.cost.forward, batch)
    return GENERATION_SLOWDOWN * flops * speed.seconds / speed.flops


def _flops(cost: Cost, batch: BatchShape) -> int:
    """FLOPs of a batch of equal examples."""
    return batch.examples * cost.of([(round(batch.source), round(batch.target))])


def terms(
    workload: Workload, batch: BatchShape, parts: int, rate: float, bandwidth: float
) -> dict[str, Terms]:
    """Cost terms of each phase except loading."""
    sizes = workload.sizes
    forward = parts * _flops(workload.cost.forward, batch)
    backward = parts * _flops(workload.cost.training, batch) - forward
    moved = _traffic(workload, batch, parts)
    calls = parts * CALLS_PER_LAYER * (sizes.encoder_layers + DECODER_LAYER * sizes.decoder_layers)
    flops = {"forward_s": float(forward), "backward_s": float(backward)}
    called = {"forward_s": calls, "backward_s": 2 * workload.backward_share * calls}
    if workload.checkpointing:  # recomputes the forward pass
        for of in (flops, moved, called):
            of["backward_s"] += of["forward_s"]
    return {
        name: Terms(flops.get(name, 0.0) / rate, moved[name] / bandwidth, called.get(name, 0.0))
        for name in PHASES[1:]
    }


def _traffic(workload: Workload, batch: BatchShape, parts: int) -> dict[str, float]:
    """Bytes that each phase moves between memory and processor."""
    sizes = workload.sizes
    encoder, decoder = layer_numbers(workload, batch)
    s, t = batch.source, batch.target
    layers = sizes.encoder_layers * s * s + sizes.decoder_layers * (t * t + s * t)
    scores = batch.examples * sizes.heads * layers
    saved = sizes.encoder_layers * encoder + sizes.decoder_layers * decoder
    saved += workload.saved_activations.scores * scores
    forward = parts * (SAVED_PASSES * workload.number_bytes * saved + workload.weight_bytes)
    if workload.quantised:
        forward += parts * DEQUANTISE_BYTES * workload.inner
    logits = parts * batch.examples * batch.target * sizes.vocab * FP32_BYTES
    return {
        "forward_s": forward,
        "loss_s": LOSS_PASSES * logits,
        "backward_s": 2 * workload.backward_share * forward,
        "optimizer_s": OPTIMIZER_PASSES * FP32_BYTES * workload.trained,
    }
