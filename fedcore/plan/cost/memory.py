"""Peak memory of local training on one device, in parts that have names.

Weights, gradients and moments are counted; what the backward pass keeps is counted per token and
layer with the coefficients of ``fedcore.plan.cost.coefficients``. On a CPU the peak is the resident
memory of the process, on an accelerator what torch allocates plus the context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.architecture.sizes import FP32_BYTES
from fedcore.plan.cost.coefficients import MEMORY_SHARE, RUNTIME_BYTES, WORKSPACE_LAYERS
from fedcore.plan.cost.workload import QUANTISED, BatchShape, Workload

MOMENTS = 2


@dataclass(frozen=True)
class Memory:
    """Bytes by part while training, and the two other moments that may need more.

    ``examples`` are those of a micro-batch. ``loading`` reads the files, ``sending`` makes the
    update: neither holds what only training needs.
    """

    parts: Mapping[str, float]
    examples: int
    loading: float
    sending: float

    @property
    def training(self) -> float:
        return sum(self.parts.values())

    @property
    def peak(self) -> float:
        return max(self.training, self.loading, self.sending)


def memory(
    method: Workload,
    work: BatchShape,
    accelerator: bool = False,
    runtime_bytes: float | None = None,
) -> Memory:
    """The peak of training on batches of ``work``; its examples are those of one micro-batch.

    ``runtime_bytes``: measured on this machine instead of the table's.
    """
    runtime = RUNTIME_BYTES[accelerator] if runtime_bytes is None else runtime_bytes
    beside = method.costs.beside_base(method)
    copies = 0.0 if method.precision == "fp32" else method.costs.bf16_copies(method)
    weights = method.weight_bytes + copies + beside
    trained = FP32_BYTES * method.trained
    activations = _activations(method, work)
    parts = {
        "weights": weights,
        "gradients": trained,
        "optimizer": MOMENTS * trained,
        "activations": activations,
        "logits": _logits(method, work),
        "workspace": _workspace(method, work),
        "runtime": runtime,
    }
    held = method.weight_bytes + beside + runtime
    return Memory(parts, work.examples, _loading(method) + runtime, held + 2 * trained)


def largest_micro_batch(
    method: Workload, work: BatchShape, limit: float | None, accelerator: bool = False
) -> Memory:
    """Memory with as many examples at a time as fit, halving; with one where nothing fits."""
    examples = work.examples
    found = memory(method, work, accelerator)
    while limit and examples > 1 and found.peak > limit:
        examples = -(-examples // 2)
        found = memory(method, work.of(examples), accelerator)
    return found


def usable(memory_bytes: float | None) -> float | None:
    """What a job may use of a device's memory."""
    return None if memory_bytes is None else MEMORY_SHARE * memory_bytes


def _loading(method: Workload) -> float:
    """fp32 weights are the files' own pages; others are made of them one tensor after another."""
    largest = FP32_BYTES * method.sizes.vocab * method.sizes.d_model
    return method.weight_bytes + (0.0 if method.base == "fp32" else largest)


def layer_numbers(method: Workload, work: BatchShape) -> tuple[float, float]:
    """Numbers kept of one encoder and one decoder layer, scores left out."""
    sizes, kept = method.sizes, method.kept
    attention = kept.attention_d * sizes.d_model + kept.attention_inner * sizes.inner
    forward = kept.forward_d * sizes.d_model + kept.forward_ff * sizes.d_ff
    forward += method.costs.block_numbers(method)
    source, target = work.examples * work.source, work.examples * work.target
    crossed = 2 * sizes.inner * source
    encoded = work.of_encoder * work.source
    return encoded * (attention + forward), target * (2 * attention + forward) + crossed


def _scores(method: Workload, work: BatchShape) -> float:
    sizes, s, t = method.sizes, work.source, work.target
    encoder = work.of_encoder * method.keeping * s * s
    decoder = work.examples * method.keeping_decoder * (t * t + s * t)
    return method.kept.scores * sizes.heads * (encoder + decoder)


def _activations(method: Workload, work: BatchShape) -> float:
    """Bytes kept for the backward pass: with checkpointing every layer's input, and one layer."""
    sizes = method.sizes
    encoder, decoder = layer_numbers(method, work)
    scores = _scores(method, work)
    if method.checkpointing:
        source, target = work.examples * work.source, work.examples * work.target
        inputs = method.keeping * source + method.keeping_decoder * (target + source)
        layers = method.keeping + method.keeping_decoder
        numbers = inputs * sizes.d_model + max(encoder, decoder) + scores / layers
    else:
        numbers = method.keeping * encoder + method.keeping_decoder * decoder + scores
    ends = method.kept.ends_d * sizes.d_model * work.examples * (work.source + work.target)
    return method.tuning.activations * method.item * (numbers + ends)


def _logits(method: Workload, work: BatchShape) -> float:
    tuning, positions = method.tuning, work.examples * work.target
    if tuning.logits_in_flight:
        positions = min(positions, tuning.logits_in_flight)
    heads = tuning.heads * method.sizes.d_model if method.costs.trains_head else 0.0
    return FP32_BYTES * (tuning.logits * positions + heads) * method.sizes.vocab


def _workspace(method: Workload, work: BatchShape) -> float:
    """Scratch of the layer at work, and the weights that a quantised base makes anew."""
    scratch = WORKSPACE_LAYERS * method.item * max(layer_numbers(method, work))
    anew = FP32_BYTES * method.sizes.d_model * method.sizes.d_ff
    return scratch + (anew if method.base in QUANTISED else 0.0)
