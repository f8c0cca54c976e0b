"""The planner's fitted coefficients: everything that no data sheet gives.

``python -m benchmarks plan`` fits them on a few configurations, measures others to see how far off
the predictions are, and prints values that would fit better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MB = 1e6


@dataclass(frozen=True)
class SavedActivations:
    """Activations that autograd saves for the backward pass, as coefficients.

    Numbers per token, in units of a width: an attention block (``attention_d`` x d_model,
    ``attention_inner`` x heads * d_kv), a feed-forward block (``forward_d`` x d_model,
    ``forward_ff`` x d_ff) and everything outside the layers (``ends_d`` x d_model). ``scores``:
    numbers per attention score. Coefficients of d_model are hard to separate, so one may be
    negative; their sum is what counts. Counted by ``python -m benchmarks saved_activations``.
    """

    attention_d: float
    attention_inner: float
    forward_d: float
    forward_ff: float
    ends_d: float
    scores: float


@dataclass(frozen=True)
class KernelCoefficients:
    """The coefficients of one set of kernels (``train.kernels``).

    ``product``: share of a product's measured rate that the products of a step reach. ``passes``:
    factor on the counted memory traffic. ``call_s``: seconds per operator call. ``activations``:
    factor on the counted bytes of saved activations. ``saved``: by (adapter kind, precision).
    """

    product: float
    passes: float
    call_s: float
    activations: float
    saved: Mapping[tuple[str, str], SavedActivations]
    logits: float  # fp32 numbers per logit in flight
    logits_in_flight: int  # target positions; 0: the whole batch
    heads: float  # extra fp32 gradients of the output layer, if it trains


KERNEL_COEFFICIENTS: Mapping[str, KernelCoefficients] = {
    "fast": KernelCoefficients(
        product=0.77,
        passes=2.3,
        call_s=2.8e-5,
        activations=0.98,
        saved={
            ("lora", "fp32"): SavedActivations(-0.14, 2.68, 7.95, 2.52, 0.20, 1.01),
            ("lora", "bf16"): SavedActivations(0.38, 2.68, 9.93, 3.02, -0.25, 1.01),
            ("bottleneck", "fp32"): SavedActivations(-5.31, 2.25, 10.20, 2.53, 1.76, 0.97),
            ("bottleneck", "bf16"): SavedActivations(-5.34, 2.27, 11.35, 3.04, 2.61, 0.97),
            ("full", "fp32"): SavedActivations(0.53, 3.64, 4.82, 3.50, 3.22, 1.00),
            ("full", "bf16"): SavedActivations(1.03, 3.65, 5.32, 4.00, 4.29, 1.00),
        },
        logits=2.5,
        logits_in_flight=128,
        heads=2.0,
    ),
    "plain": KernelCoefficients(
        product=0.46,
        passes=3.1,
        call_s=1.9e-5,
        activations=1.17,
        saved={
            ("lora", "fp32"): SavedActivations(0.94, 2.30, 9.50, 7.03, -1.06, 3.01),
            ("lora", "bf16"): SavedActivations(-2.05, 5.82, 20.62, 7.02, -3.03, 6.03),
            ("bottleneck", "fp32"): SavedActivations(-10.07, 1.97, 17.62, 7.10, 2.13, 2.89),
            ("bottleneck", "bf16"): SavedActivations(-26.30, 5.88, 42.20, 7.15, 5.01, 5.77),
            ("full", "fp32"): SavedActivations(2.35, 3.64, 5.89, 8.00, 5.43, 3.01),
            ("full", "bf16"): SavedActivations(-2.94, 7.53, 21.06, 7.99, 9.44, 6.02),
        },
        logits=3.5,
        logits_in_flight=0,
        heads=0.0,
    ),
}

# Share of the peak that products at the model's shapes reach, if none was measured.
SHAPE_SHARE = 0.7
CALLS_PER_LAYER = 60.0  # forward; twice as many backward
OPTIMIZER_PASSES = 7.0  # reads weight, gradient, two moments; writes weight, moments
LOSS_PASSES = 6.0  # over each logit in fp32, both directions
SAVED_PASSES = 2.0  # a saved number is written once and read once, in each direction
DEQUANTISE_BYTES = 10.0  # of traffic to dequantise one weight of an int8 or nf4 base
PADDED_SHARE = 0.5  # padded length of a random batch: this far from the mean to the longest
REWARD_S = 5e-4  # to decode a sample and score it by text overlap or a simpler reward
# Factor on the seconds per FLOP of generation, which uses the hardware less well than training.
GENERATION_SLOWDOWN = 4.0
LOAD_S_PER_TOKEN = 2e-7

# The process (False) or the accelerator's context (True) before a model is loaded.
RUNTIME_BYTES: Mapping[bool, float] = {False: 440 * MB, True: 520 * MB}
WORKSPACE_LAYERS = 1.5  # scratch memory, in layers of one micro-batch's activations
MEMORY_SHARE = 0.9  # of a device's memory that a job may use
COMMUNICATION_POWER = 0.15  # while only the link is busy: this far from idle to full load
