"""The matrices of a T5-family model that adapters can be put on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from fedcore.architecture.sizes import ATTENTION, Architecture

SELF, CROSS, FORWARD = "SelfAttention", "EncDecAttention", "DenseReluDense"


@dataclass(frozen=True)
class Matrix:
    """``name``: full name in the model; ``key``: short name for reports (e0.q, d3.x.v).

    ``inputs`` and ``outputs``: its sides. ``per_source``: it multiplies source tokens, else target
    tokens.
    """

    name: str
    key: str
    inputs: int
    outputs: int
    per_source: bool

    @property
    def kind(self) -> str:
        """Its name in the LoRA targets."""
        return self.name.rpartition(".")[2]

    @property
    def encodes(self) -> bool:
        """Whether it is part of the encoder."""
        return self.key.startswith("e")

    @property
    def per_rank(self) -> int:
        """Weights of a LoRA adapter on it per rank."""
        return self.inputs + self.outputs


@lru_cache(maxsize=16)
def matrices(sizes: Architecture) -> tuple[Matrix, ...]:
    """All of them in order of use: the encoder's layers, then the decoder's."""
    rows: list[Matrix] = []
    for i in range(sizes.encoder_layers):
        layer = f"encoder.block.{i}.layer"
        rows += _attention(sizes, f"{layer}.0.{SELF}", f"e{i}", (True, True))
        rows += _forward(sizes, f"{layer}.1.{FORWARD}", f"e{i}", True)
    for i in range(sizes.decoder_layers):
        layer = f"decoder.block.{i}.layer"
        rows += _attention(sizes, f"{layer}.0.{SELF}", f"d{i}", (False, False))
        rows += _attention(sizes, f"{layer}.1.{CROSS}", f"d{i}.x", (False, True))
        rows += _forward(sizes, f"{layer}.2.{FORWARD}", f"d{i}", False)
    return tuple(rows)


def _attention(
    sizes: Architecture, stem: str, key: str, per_source: tuple[bool, bool]
) -> Iterator[Matrix]:
    """``per_source``: of (queries and output, keys and values), whether they are source tokens."""
    for kind in ATTENTION:
        shape = (sizes.inner, sizes.d_model) if kind == "o" else (sizes.d_model, sizes.inner)
        yield Matrix(f"{stem}.{kind}", f"{key}.{kind}", *shape, per_source[kind in ("k", "v")])


def _forward(sizes: Architecture, stem: str, key: str, per_source: bool) -> Iterator[Matrix]:
    *first, last = sizes.feed_forward
    for kind in first:
        yield Matrix(f"{stem}.{kind}", f"{key}.{kind}", sizes.d_model, sizes.d_ff, per_source)
    yield Matrix(f"{stem}.{last}", f"{key}.{last}", sizes.d_ff, sizes.d_model, per_source)
