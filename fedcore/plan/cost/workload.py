"""Model size and training workload of a job on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedcore.architecture.matrices import matrices
from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.coefficients import (
    DEQUANTISE_BYTES,
    KERNEL_COEFFICIENTS,
    KernelCoefficients,
    SavedActivations,
)
from fedcore.plan.cost.kinds.contract import AdapterCost
from fedcore.plan.cost.kinds.table import ADAPTER_COSTS
from fedcore.plan.cost.step_flops import StepCost
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.options.ranks import ranks_of
from fedcore.spec.options.train import BASES, BasePrecision
from fedcore.spec.overrides import lora_of

# Bytes per weight by precision; int8 and nf4 include their scales (fedcore.model.quantise).
WEIGHT_BYTES: Mapping[str, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.01, "nf4": 0.5625}
DECODER_LAYER = 1.5  # a decoder layer counts as this many encoder layers
DEFAULT_DROPOUT = 0.1  # of the checkpoints of the family


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a batch: its examples, and ``source`` and ``target`` tokens of each.

    Plain kernels pad every example to the longest. ``encoded``: examples that the encoder processes
    with a gradient, if several share a source (None: all).
    """

    examples: int
    source: float
    target: float
    encoded: int | None = None

    def resized(self, examples: int) -> BatchShape:
        return BatchShape(examples, self.source, self.target)

    @property
    def encoder_examples(self) -> int:
        return self.examples if self.encoded is None else self.encoded


@dataclass(frozen=True)
class Workload:
    """A job's model and training options on one class of device.

    ``precision``: fp32 or bf16; ``base``: precision of the frozen weights. ``rank`` and ``targets``
    belong to the LoRA that trains here, which may be a personal one; ``rank`` is 0 without LoRA.
    ``ranks``: one rank for each of ``matrices`` if they differ, -1 for a matrix without adapter.
    Derived counts are cached, since the devices of a large fleet share very few workloads.
    """

    sizes: Architecture
    adapter: AdapterSpec
    rank: int
    targets: tuple[str, ...]
    precision: str
    base: str
    kernels: str
    checkpointing: bool
    dropout: float
    coefficients: KernelCoefficients
    ranks: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, spec: JobSpec, sizes: Architecture, precision: str, accelerator: bool = False
    ) -> Workload:
        """Fast kernels run on CPUs only; accelerators use the plain ones."""
        kernels = "plain" if accelerator else spec.train.kernels
        lora = lora_of(spec)
        base = precision if spec.model.base_family.follows_training else spec.model.base
        rate = spec.train.dropout
        return cls(
            sizes=sizes,
            adapter=spec.adapter,
            rank=lora.rank if lora else 0,
            targets=lora.targets if lora else (),
            precision=precision,
            base=base if spec.adapter.family.freezes_base else "fp32",
            kernels=kernels,
            checkpointing=spec.train.checkpointing,
            dropout=DEFAULT_DROPOUT if rate < 0 else rate,
            coefficients=KERNEL_COEFFICIENTS[kernels],
            ranks=ranks_of(lora, [row.name for row in matrices(sizes)]) if lora else (),
        )

    @property
    def costs(self) -> AdapterCost:
        """The costs of its kind of adapter."""
        return ADAPTER_COSTS[self.adapter.family.kind]

    @property
    def quantised(self) -> bool:
        """Whether frozen matrices are made anew for every product."""
        return BASES[BasePrecision(self.base)].quantised

    @property
    def base_bytes(self) -> float:
        """Bytes of one frozen weight of a matrix."""
        return WEIGHT_BYTES[self.base]

    @property
    def saved_activations(self) -> SavedActivations:
        return self.coefficients.saved[self.costs.saved(self), self.precision]

    @property
    def encoder_is_fixed(self) -> bool:
        """Whether nothing in the encoder trains."""
        return self.costs.encoder_is_fixed(self)

    @property
    def saved_encoder_layers(self) -> int:
        """Encoder layers whose activations the backward pass needs; none below what trains."""
        return self.costs.encoder_layers(self)

    @property
    def saved_decoder_layers(self) -> int:
        """The same for the decoder."""
        return self.costs.decoder_layers(self)

    @property
    def backward_share(self) -> float:
        """Share of the layers' operators that the backward pass visits."""
        sizes = self.sizes
        layers = sizes.encoder_layers + DECODER_LAYER * sizes.decoder_layers
        return (self.saved_encoder_layers + DECODER_LAYER * self.saved_decoder_layers) / layers

    @property
    def number_bytes(self) -> int:
        """Bytes of one input number of a matrix product."""
        return 2 if self.precision == "bf16" else 4

    @cached_property
    def parameters(self) -> int:
        return self.sizes.parameters()

    @cached_property
    def trained(self) -> int:
        """Number of trained weights."""
        return self.costs.trained(self)

    @cached_property
    def served_weights(self) -> int:
        """Weights that travel down. A personal LoRA beside bottlenecks does not."""
        return self.costs.served(self)

    @cached_property
    def update_weights(self) -> int:
        """Weights that travel up."""
        return self.costs.update(self)

    @cached_property
    def inner(self) -> int:
        """Weights of the layers' matrices: without embeddings, head, norms and biases."""
        return sum(self._inner)

    @property
    def _inner(self) -> tuple[int, int]:
        """The same for (encoder, decoder)."""
        sizes = self.sizes
        attention = 4 * sizes.d_model * sizes.inner
        forward = len(sizes.feed_forward) * sizes.d_model * sizes.d_ff
        encoder = sizes.encoder_layers * (attention + forward)
        return encoder, sizes.decoder_layers * (2 * attention + forward)

    @cached_property
    def cost(self) -> StepCost:
        return self.costs.step(self)

    @cached_property
    def weight_bytes(self) -> float:
        """Bytes of the base in memory; embeddings and head are never quantised."""
        outside = self.precision if self.quantised else self.base
        rest = self.parameters - self.inner
        return self.inner * WEIGHT_BYTES[self.base] + rest * WEIGHT_BYTES[outside]

    @property
    def encoder_bytes(self) -> float:
        """Bytes of the base that a pass over the encoder reads."""
        return self._inner[0] * self._read_bytes

    @property
    def decoder_bytes(self) -> float:
        """Bytes of the base that a pass over the decoder and the head reads."""
        outside = self.precision if self.quantised else self.base
        head = self.sizes.vocab * self.sizes.d_model * WEIGHT_BYTES[outside]
        return self._inner[1] * self._read_bytes + head

    @property
    def _read_bytes(self) -> float:
        """Bytes of traffic per weight of a matrix, with dequantisation."""
        return WEIGHT_BYTES[self.base] + (DEQUANTISE_BYTES if self.quantised else 0.0)
