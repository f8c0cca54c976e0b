"""Seconds of an optimizer step by phase, from FLOPs, bytes and the rates of the machine.

Products and element-wise work do not overlap in eager mode, so their times add: FLOPs at the rate
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
    KEPT_PASSES,
    LOAD_S_PER_TOKEN,
    LOSS_PASSES,
    OPTIMIZER_PASSES,
    SHAPE_SHARE,
    KernelCoefficients,
)
from fedcore.plan.cost.flops import Cost
from fedcore.plan.cost.memory import layer_numbers
from fedcore.plan.cost.workload import DECODER_LAYER, QUANTISED, BatchShape, Workload

LAYER = "linear"  # the measured kernels that are products of a layer
PHASES = ("load_s", "forward_s", "loss_s", "backward_s", "optimizer_s")


@dataclass(frozen=True)
class Terms:
    """Seconds of products at full rate, seconds of memory traffic, calls of operators."""

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

    def seconds(self, tuning: KernelCoefficients) -> float:
        products = self.product_s / tuning.product
        return products + tuning.passes * self.memory_s + tuning.call_s * self.calls


@dataclass(frozen=True)
class Step:
    """``phases`` in seconds, ``flops`` needed (padding left out), ``moved`` bytes of memory."""

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
        """The same step in so many times the seconds, its phases in the same proportion."""
        phases = {name: value * factor for name, value in self.phases.items()}
        return Step(phases, self.flops, self.moved, self.peak_flops)


def product_rate(hardware: Hardware, precision: str) -> float | None:
    """FLOP/s of products at the model's shapes: measured, else a share of the large one's."""
    kernels = [row for row in hardware.kernels if row.name.startswith(LAYER)]
    measured = [row.flops_per_s for row in kernels if row.precision == precision]
    if measured:
        return statistics.median(measured)
    peak = hardware.peak_flops.get(precision)
    return SHAPE_SHARE * peak if peak else None


def step(
    method: Workload,
    hardware: Hardware,
    work: BatchShape,
    padded: BatchShape | None = None,
    parts: int = 1,
) -> Step | None:
    """One optimizer step over ``parts`` micro-batches of ``work``; None for an unmeasured machine.

    ``padded``: what plain kernels compute on instead, each example as long as the longest.
    """
    rate, bandwidth = product_rate(hardware, method.precision), hardware.bandwidth_bps
    peak = hardware.peak_flops.get(method.precision)
    if rate is None or peak is None or bandwidth is None:
        return None
    seen = padded if padded is not None and method.kernels == "plain" else work
    found = terms(method, seen, parts, rate, bandwidth)
    phases = {name: part.seconds(method.tuning) for name, part in found.items()}
    moved = bandwidth * sum(part.memory_s for part in found.values())
    needed = parts * _flops(method.cost.training, work)
    tokens = parts * work.examples * (work.source + work.target)
    return Step({"load_s": tokens * LOAD_S_PER_TOKEN, **phases}, needed, moved, peak)


def evaluation_s(method: Workload, work: BatchShape, speed: Step) -> float:
    """Seconds of evaluating so many examples by generation, at the speed training has."""
    flops = _flops(method.cost.forward, work)
    return GENERATION_SLOWDOWN * flops * speed.seconds / speed.flops


def _flops(cost: Cost, work: BatchShape) -> int:
    """Of examples that are all alike."""
    return work.examples * cost.of([(round(work.source), round(work.target))])


def terms(
    method: Workload, work: BatchShape, parts: int, rate: float, bandwidth: float
) -> dict[str, Terms]:
    """What each phase but loading is made of, before the coefficients of the kernels."""
    sizes = method.sizes
    forward = parts * _flops(method.cost.forward, work)
    backward = parts * _flops(method.cost.training, work) - forward
    moved = _traffic(method, work, parts)
    calls = parts * CALLS_PER_LAYER * (sizes.encoder_layers + DECODER_LAYER * sizes.decoder_layers)
    flops = {"forward_s": float(forward), "backward_s": float(backward)}
    called = {"forward_s": calls, "backward_s": 2 * method.reach * calls}
    if method.checkpointing:  # the forward pass is made again in the backward one
        for of in (flops, moved, called):
            of["backward_s"] += of["forward_s"]
    return {
        name: Terms(flops.get(name, 0.0) / rate, moved[name] / bandwidth, called.get(name, 0.0))
        for name in PHASES[1:]
    }


def _traffic(method: Workload, work: BatchShape, parts: int) -> dict[str, float]:
    """Bytes that each phase moves between memory and processor."""
    sizes = method.sizes
    encoder, decoder = layer_numbers(method, work)
    kept = sizes.encoder_layers * encoder + sizes.decoder_layers * decoder
    kept += method.kept.scores * _score_numbers(method, work)
    once = parts * (KEPT_PASSES * method.item * kept + method.weight_bytes)
    if method.base in QUANTISED:
        once += parts * DEQUANTISE_BYTES * method.inner
    logits = parts * work.examples * work.target * sizes.vocab * FP32_BYTES
    return {
        "forward_s": once,
        "loss_s": LOSS_PASSES * logits,
        "backward_s": 2 * method.reach * once,
        "optimizer_s": OPTIMIZER_PASSES * FP32_BYTES * method.trained,
    }


def _score_numbers(method: Workload, work: BatchShape) -> float:
    """Attention scores of a forward pass."""
    sizes, s, t = method.sizes, work.source, work.target
    layers = sizes.encoder_layers * s * s + sizes.decoder_layers * (t * t + s * t)
    return work.examples * sizes.heads * layers
