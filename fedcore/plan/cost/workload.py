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
from fedcore.plan.cost.step_flops import StepCost, full_cost, layers_cost, lora_cost, ranked_cost
from fedcore.spec.job import JobSpec
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

    ``rank`` and ``targets`` are those of LoRA, ``width`` that of bottlenecks, ``last`` the number
    of decoder layers that train themselves; 0: there are none.
    ``own`` are the ranks of ``matrices`` one by one where they differ, -1 for one without adapter.
    What is counted from them is kept: a fleet of thousands shares a method or two.
    """

    sizes: Architecture
    full: bool
    rank: int
    targets: tuple[str, ...]
    precision: str
    base: str
    kernels: str
    checkpointing: bool
    dropout: float
    tuning: KernelCoefficients
    width: int = 0
    own: tuple[int, ...] = ()
    last: int = 0
    only_b: bool = False  # of a LoRA B alone is sent back (ffa)

    @classmethod
    def of(
        cls, spec: JobSpec, sizes: Architecture, precision: str, accelerator: bool = False
    ) -> Workload:
        """The fast kernels are a CPU's; an accelerator runs the plain ones."""
        kernels = "plain" if accelerator else spec.train.kernels
        full, lora = spec.adapter.kind == "full", lora_of(spec)
        base = spec.model.base if spec.model.base != "auto" else precision
        rate = spec.train.dropout
        own = ranks_of(lora, [row.name for row in matrices(sizes)]) if lora else ()
        return cls(
            sizes=sizes,
            full=full,
            rank=lora.rank if lora else 0,
            targets=lora.targets if lora else (),
            precision=precision,
            base="fp32" if full else base,
            kernels=kernels,
            checkpointing=spec.train.checkpointing,
            dropout=DEFAULT_DROPOUT if rate < 0 else rate,
            tuning=KERNEL_COEFFICIENTS[kernels],
            width=spec.adapter.width if spec.adapter.kind == "bottleneck" else 0,
            own=own,
            last=spec.adapter.last_layers if spec.adapter.kind == "layers" else 0,
            only_b=spec.adapter.kind == "lora" and spec.adapter.aggregation == "ffa",
        )

    @property
    def kept(self) -> SavedActivations:
        kind = "full" if self.full or self.last else "lora" if self.rank else "bottleneck"
        return self.tuning.kept[kind, self.precision]

    @property
    def encoder_is_fixed(self) -> bool:
        """Whether nothing in the encoder trains."""
        if self.full or self.width:
            return False
        rows = zip(matrices(self.sizes), self.own)  # noqa: B905 - no row where all are alike
        return bool(self.last) or (
            bool(self.own) and not any(row.encodes and rank >= 0 for row, rank in rows)
        )

    @property
    def keeping(self) -> int:
        """Encoder layers of which the backward pass keeps something: none below all that trains."""
        if self.last:
            return 0
        alone = self.width and not self.rank
        return self.sizes.encoder_layers - (1 if alone else 0)

    @property
    def keeping_decoder(self) -> int:
        """The same of the decoder."""
        return self.last or self.sizes.decoder_layers

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
        if self.full:
            return self.parameters
        if self.last:
            return self.sizes.layers_parameters(self.last)
        lora = self._lora
        return lora + self.sizes.bottleneck_parameters(self.width) if self.width else lora

    @property
    def _lora(self) -> int:
        if not self.own:
            return self.sizes.lora_parameters(self.rank, self.targets)
        rows = zip(matrices(self.sizes), self.own, strict=True)
        return sum(row.per_rank * max(0, rank) for row, rank in rows)

    @cached_property
    def sent(self) -> int:
        """Weights that travel: a LoRA beside bottlenecks stays on its device."""
        return self.sizes.bottleneck_parameters(self.width) if self.width else self.trained

    @cached_property
    def sent_up(self) -> int:
        """Weights of an update."""
        if not self.only_b:
            return self.sent
        rows = matrices(self.sizes)
        ranks = self.own or [self.rank * (row.kind in self.targets) for row in rows]
        return sum(row.outputs * max(0, rank) for row, rank in zip(rows, ranks, strict=True))

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
        if self.full:
            return full_cost(self.sizes)
        if self.last:
            return layers_cost(self.sizes, self.last)
        if self.own:
            return ranked_cost(self.sizes, self.own, self.width)
        return lora_cost(self.sizes, self.rank, self.targets, self.width)

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
