"""The matrices of a T5-family model that an adapter can be put on, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from fedcore.architecture.sizes import ATTENTION, Architecture

SELF, CROSS, FORWARD = "SelfAttention", "EncDecAttention", "DenseReluDense"


@dataclass(frozen=True)
class Matrix:
    """``name`` is its full name in the model, ``key`` a short one for reports (e0.q, d3.x.v).

    It multiplies each source or each target token, over ``inputs`` in and ``outputs`` out.
    """

    name: str
    key: str
    inputs: int
    outputs: int
    per_source: bool

    @property
    def kind(self) -> str:
        """What the LoRA targets call it."""
        return self.name.rpartition(".")[2]

    @property
    def encodes(self) -> bool:
        """Whether it is part of the encoder."""
        return self.key.startswith("e")

    @property
    def per_rank(self) -> int:
        """Weights of an adapter on it for each of its ranks."""
        return self.inputs + self.outputs


@lru_cache(maxsize=16)
def matrices(sizes: Architecture) -> tuple[Matrix, ...]:
    """All of them in the order they are used: the encoder's layers, then the decoder's."""
    encoder = (row for i in range(sizes.encoder_layers) for row in _encoder_layer(sizes, i))
    decoder = (row for i in range(sizes.decoder_layers) for row in _decoder_layer(sizes, i))
    return (*encoder, *decoder)


def _encoder_layer(sizes: Architecture, i: int) -> Iterator[Matrix]:
    yield from _attention(sizes, f"encoder.block.{i}.layer.0.{SELF}", f"e{i}", (True, True))
    yield from _forward(sizes, f"encoder.block.{i}.layer.1.{FORWARD}", f"e{i}", True)


def _decoder_layer(sizes: Architecture, i: int) -> Iterator[Matrix]:
    yield from _attention(sizes, f"decoder.block.{i}.layer.0.{SELF}", f"d{i}", (False, False))
    yield from _attention(sizes, f"decoder.block.{i}.layer.1.{CROSS}", f"d{i}.x", (False, True))
    yield from _forward(sizes, f"decoder.block.{i}.layer.2.{FORWARD}", f"d{i}", False)


def _attention(
    sizes: Architecture, stem: str, key: str, per_source: tuple[bool, bool]
) -> Iterator[Matrix]:
    """``per_source``: whether queries, and whether keys and values, are made of source tokens."""
    for kind in ATTENTION:
        shape = (sizes.inner, sizes.d_model) if kind == "o" else (sizes.d_model, sizes.inner)
        yield Matrix(f"{stem}.{kind}", f"{key}.{kind}", *shape, per_source[kind in ("k", "v")])


def _forward(sizes: Architecture, stem: str, key: str, per_source: bool) -> Iterator[Matrix]:
    *first, last = sizes.feed_forward
    for kind in first:
        yield Matrix(f"{stem}.{kind}", f"{key}.{kind}", sizes.d_model, sizes.d_ff, per_source)
    yield Matrix(f"{stem}.{last}", f"{key}.{last}", sizes.d_ff, sizes.d_model, per_source)
