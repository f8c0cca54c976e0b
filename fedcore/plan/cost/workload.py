"""What a job's options come to on one device: the sizes of its model, and how it is trained."""

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
from fedcore.spec.overrides import lora_of

# Bytes of a weight by how it is kept; int8 and nf4 with their scales (fedcore.model.quantise).
WEIGHT_BYTES: Mapping[str, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.01, "nf4": 0.5625}
QUANTISED = ("int8", "nf4")
DECODER_LAYER = 1.5  # encoder layers that one of the decoder is worth
DEFAULT_DROPOUT = 0.1  # of the checkpoints of the family


@dataclass(frozen=True)
class BatchShape:
    """One batch: ``source`` and ``target`` tokens of each of its examples, as the kernels see them.

    With plain kernels these are padded to the longest. ``encoded``: examples that the encoder sees
    with a gradient, where several share a source; None: all.
    """

    examples: int
    source: float
    target: float
    encoded: int | None = None

    def of(self, examples: int) -> BatchShape:
        return BatchShape(examples, self.source, self.target)

    @property
    def of_encoder(self) -> int:
        return self.examples if self.encoded is None else self.encoded


@dataclass(frozen=True)
class Workload:
    """``precision`` is fp32 or bf16, ``base`` how frozen weights are kept.

    ``rank`` and ``targets`` are those of the LoRA that trains here, which may be the device's own;
    ``rank`` is 0 where there is none.
    ``own`` are the ranks of ``matrices`` one by one where they differ, -1 for one without adapter.
    What is counted from them is kept: a fleet of thousands shares a method or two.
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
    tuning: KernelCoefficients
    own: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, spec: JobSpec, sizes: Architecture, precision: str, accelerator: bool = False
    ) -> Workload:
        """The fast kernels are a CPU's; an accelerator runs the plain ones."""
        kernels = "plain" if accelerator else spec.train.kernels
        lora = lora_of(spec)
        base = spec.model.base if spec.model.base != "auto" else precision
        rate = spec.train.dropout
        own = ranks_of(lora, [row.name for row in matrices(sizes)]) if lora else ()
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
            tuning=KERNEL_COEFFICIENTS[kernels],
            own=own,
        )

    @property
    def costs(self) -> AdapterCost:
        """The costs of its kind of adapter."""
        return ADAPTER_COSTS[self.adapter.family.kind]

    @property
    def base_bytes(self) -> float:
        """Bytes of one frozen weight of a matrix."""
        return WEIGHT_BYTES[self.base]

    @property
    def kept(self) -> SavedActivations:
        return self.tuning.kept[self.costs.saved(self), self.precision]

    @property
    def encoder_is_fixed(self) -> bool:
        """Whether nothing in the encoder trains."""
        return self.costs.encoder_is_fixed(self)

    @property
    def keeping(self) -> int:
        """Encoder layers of which the backward pass keeps something: none below all that trains."""
        return self.costs.encoder_layers(self)

    @property
    def keeping_decoder(self) -> int:
        """The same of the decoder."""
        return self.costs.decoder_layers(self)

    @property
    def reach(self) -> float:
        """The share of the layers that the backward pass goes through, by their operators."""
        sizes = self.sizes
        layers = sizes.encoder_layers + DECODER_LAYER * sizes.decoder_layers
        return (self.keeping + DECODER_LAYER * self.keeping_decoder) / layers

    @property
    def item(self) -> int:
        """Bytes of a number that products take in."""
        return 2 if self.precision == "bf16" else 4

    @cached_property
    def parameters(self) -> int:
        return self.sizes.parameters()

    @cached_property
    def trained(self) -> int:
        """Weights that learn."""
        return self.costs.trained(self)

    @cached_property
    def sent(self) -> int:
        """Weights that travel: a LoRA beside bottlenecks stays on its device."""
        return self.costs.served(self)

    @cached_property
    def sent_up(self) -> int:
        """Weights of an update."""
        return self.costs.update(self)

    @cached_property
    def inner(self) -> int:
        """Weights of the matrices inside the layers: all but embeddings, head, norms, biases."""
        return sum(self._inner)

    @property
    def _inner(self) -> tuple[int, int]:
        """The same of encoder and decoder."""
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
        """The base as it is held; embeddings and head are never quantised."""
        outside = self.precision if self.base in QUANTISED else self.base
        rest = self.parameters - self.inner
        return self.inner * WEIGHT_BYTES[self.base] + rest * WEIGHT_BYTES[outside]

    @property
    def encoder_bytes(self) -> float:
        """What a pass over the encoder reads of the base."""
        return self._inner[0] * self._read_bytes

    @property
    def decoder_bytes(self) -> float:
        """What a pass over the decoder and the head reads."""
        outside = self.precision if self.base in QUANTISED else self.base
        head = self.sizes.vocab * self.sizes.d_model * WEIGHT_BYTES[outside]
        return self._inner[1] * self._read_bytes + head

    @property
    def _read_bytes(self) -> float:
        """Of traffic for one weight of a matrix, made anew where the base is quantised."""
        return WEIGHT_BYTES[self.base] + (DEQUANTISE_BYTES if self.base in QUANTISED else 0.0)
