"""What a job's options come to on one device: the sizes of its model, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedcore.plan.flops import Architecture, StepCost, full_cost, lora_cost
from fedcore.plan.tuning import TUNING, Kept, Tuning
from fedcore.spec import JobSpec

# Bytes of a weight by how it is kept; int8 and nf4 with their scales (fedcore.model.quantise).
WEIGHT_BYTES: Mapping[str, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.01, "nf4": 0.5625}
QUANTISED = ("int8", "nf4")
DEFAULT_DROPOUT = 0.1  # of the checkpoints of the family


@dataclass(frozen=True)
class Work:
    """One batch: ``source`` and ``target`` tokens of each of its examples, as the kernels see them.

    With plain kernels these are padded to the longest.
    """

    examples: int
    source: float
    target: float

    def of(self, examples: int) -> Work:
        return Work(examples, self.source, self.target)


@dataclass(frozen=True)
class Method:
    """``precision`` is fp32 or bf16, ``base`` how frozen weights are kept.

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
    tuning: Tuning

    @classmethod
    def of(
        cls, spec: JobSpec, sizes: Architecture, precision: str, accelerator: bool = False
    ) -> Method:
        """The fast kernels are a CPU's; an accelerator runs the plain ones."""
        kernels = "plain" if accelerator else spec.train.kernels
        full = spec.adapter.kind == "full"
        base = spec.model.base if spec.model.base != "auto" else precision
        rate = spec.train.dropout
        return cls(
            sizes=sizes,
            full=full,
            rank=0 if full else spec.adapter.rank,
            targets=() if full else spec.adapter.targets,
            precision=precision,
            base="fp32" if full else base,
            kernels=kernels,
            checkpointing=spec.train.checkpointing,
            dropout=DEFAULT_DROPOUT if rate < 0 else rate,
            tuning=TUNING[kernels],
        )

    @property
    def kept(self) -> Kept:
        return self.tuning.kept["full" if self.full else "lora", self.precision]

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
        return self.sizes.lora_parameters(self.rank, self.targets)

    @cached_property
    def inner(self) -> int:
        """Weights of the matrices inside the layers: all but embeddings, head, norms, biases."""
        sizes = self.sizes
        attention = 4 * sizes.d_model * sizes.inner
        forward = (3 if sizes.gated else 2) * sizes.d_model * sizes.d_ff
        layers = sizes.encoder_layers * (attention + forward)
        return layers + sizes.decoder_layers * (2 * attention + forward)

    @cached_property
    def cost(self) -> StepCost:
        if self.full:
            return full_cost(self.sizes)
        return lora_cost(self.sizes, self.rank, self.targets)

    @cached_property
    def weight_bytes(self) -> float:
        """The base as it is held; embeddings and head are never quantised."""
        outside = self.precision if self.base in QUANTISED else self.base
        rest = self.parameters - self.inner
        return self.inner * WEIGHT_BYTES[self.base] + rest * WEIGHT_BYTES[outside]
