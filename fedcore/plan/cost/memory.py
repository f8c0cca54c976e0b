"""Peak memory of local training on one device, by part.

Weights, gradients and moments are counted. Activations saved for the backward pass are estimated
per token and layer (``fedcore.plan.cost.coefficients``). On a CPU the peak is the resident memory
of the process; on an accelerator it is what torch allocates plus the context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.architecture.sizes import FP32_BYTES
from fedcore.plan.cost.coefficients import MEMORY_SHARE, RUNTIME_BYTES, WORKSPACE_LAYERS
from fedcore.plan.cost.workload import BatchShape, Workload

MOMENTS = 2


@dataclass(frozen=True)
class Memory:
    """Bytes by part during training, and the bytes of two phases that may need more.

    ``examples``: size of a micro-batch. ``loading``: while the model is read. ``sending``: while
    the update is written.
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
    workload: Workload,
    batch: BatchShape,
    accelerator: bool = False,
    runtime_bytes: float | None = None,
) -> Memory:
    """Peak memory of training on micro-batches of ``batch``.

    ``runtime_bytes``: measured on this machine, in place of the table's value.
    """
    runtime = RUNTIME_BYTES[accelerator] if runtime_bytes is None else runtime_bytes
    adapters = workload.costs.beside_base(workload)
    copies = 0.0 if workload.precision == "fp32" else workload.costs.bf16_copies(workload)
    trained = FP32_BYTES * workload.trained
    # Scratch of the current layer, and the weights that a quantised base dequantises for it.
    workspace = WORKSPACE_LAYERS * workload.number_bytes * max(layer_numbers(workload, batch))
    if workload.quantised:
        workspace += FP32_BYTES * workload.sizes.d_model * workload.sizes.d_ff
    coefficients, positions = workload.coefficients, batch.examples * batch.target
    if coefficients.logits_in_flight:
        positions = min(positions, coefficients.logits_in_flight)
    heads = coefficients.heads * workload.sizes.d_model if workload.costs.trains_head else 0.0
    logits = FP32_BYTES * (coefficients.logits * positions + heads) * workload.sizes.vocab
    parts = {
        "weights": workload.weight_bytes + copies + adapters,
        "gradients": trained,
        "optimizer": MOMENTS * trained,
        "activations": _activations(workload, batch),
        "logits": logits,
        "workspace": workspace,
        "runtime": runtime,
    }
    # fp32 weights are mapped from the files; others are converted tensor by tensor.
    largest = FP32_BYTES * workload.sizes.vocab * workload.sizes.d_model
    converted = 0.0 if workload.base == "fp32" else largest
    return Memory(
        parts,
        batch.examples,
        loading=workload.weight_bytes + converted + runtime,
        sending=workload.weight_bytes + adapters + runtime + 2 * trained,
    )


def largest_micro_batch(
    workload: Workload, batch: BatchShape, limit: float | None, accelerator: bool = False
) -> Memory:
    """Memory of the largest micro-batch that fits, by halving; of one example if none fits."""
    examples = batch.examples
    footprint = memory(workload, batch, accelerator)
    while limit and examples > 1 and footprint.peak > limit:
        examples = -(-examples // 2)
        footprint = memory(workload, batch.resized(examples), accelerator)
    return footprint


def usable(memory_bytes: float | None) -> float | None:
    """How much of a device's memory a job may use."""
    return None if memory_bytes is None else MEMORY_SHARE * memory_bytes


def layer_numbers(workload: Workload, batch: BatchShape) -> tuple[float, float]:
    """Numbers saved by (one encoder layer, one decoder layer), without attention scores."""
    sizes, saved = workload.sizes, workload.saved_activations
    attention = saved.attention_d * sizes.d_model + saved.attention_inner * sizes.inner
    forward = saved.forward_d * sizes.d_model + saved.forward_ff * sizes.d_ff
    forward += workload.costs.block_numbers(workload)
    source, target = batch.examples * batch.source, batch.examples * batch.target
    cross_attention = 2 * sizes.inner * source
    encoded = batch.encoder_examples * batch.source
    return encoded * (attention + forward), target * (2 * attention + forward) + cross_attention


def _activations(workload: Workload, batch: BatchShape) -> float:
    """Bytes saved for the backward pass; with checkpointing every layer's input and one layer."""
    sizes, s, t = workload.sizes, batch.source, batch.target
    encoder_layers = workload.saved_encoder_layers
    decoder_layers = workload.saved_decoder_layers
    encoder, decoder = layer_numbers(workload, batch)
    encoder_scores = batch.encoder_examples * encoder_layers * s * s
    decoder_scores = batch.examples * decoder_layers * (t * t + s * t)
    scores = workload.saved_activations.scores * sizes.heads * (encoder_scores + decoder_scores)
    if workload.checkpointing:
        source, target = batch.examples * s, batch.examples * t
        inputs = encoder_layers * source + decoder_layers * (target + source)
        layers = encoder_layers + decoder_layers
        numbers = inputs * sizes.d_model + max(encoder, decoder) + scores / layers
    else:
        numbers = encoder_layers * encoder + decoder_layers * decoder + scores
    ends = workload.saved_activations.ends_d * sizes.d_model * batch.examples * (s + t)
    return workload.coefficients.activations * workload.number_bytes * (numbers + ends)
