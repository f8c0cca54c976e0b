"""Initial weights with a copying circuit.

Copying needs an induction circuit: an encoder head that writes into each token what stood before
it, and a cross-attention head that looks for the tokens written after the decoder's last one. From
random weights it had not appeared after 850 steps; here it is wired in, roughly, and training does
the rest. (Olsson et al. 2022, "In-context learning and induction heads".)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

_PREVIOUS = 1
"""The relative position bucket of "one to the left", in encoder and decoder."""
_COPY_LAYER = 1
_COPY_HEADS = 3


@dataclass(frozen=True)
class Wiring:
    """Matrices of orthonormal rows: (d_kv, width) twice, (heads x d_kv, width), (width, width)."""

    address: Tensor
    stored: Tensor
    content: Tensor
    turn: Tensor

    @classmethod
    def of(cls, draw: Callable[[int, int], Tensor], d_kv: int, width: int) -> Wiring:
        """``draw`` gives orthonormal rows: (rows, columns)."""
        heads = _COPY_HEADS * d_kv
        return cls(draw(d_kv, width), draw(d_kv, width), draw(heads, width), draw(width, width))


@torch.no_grad()
def wire_copying(model: T5ForConditionalGeneration) -> None:
    """Overwrite a few heads and the output head; every other weight keeps its random value."""
    wiring = Wiring.of(_orthonormal, model.config.d_kv, model.config.d_model)
    torch.nn.init.normal_(model.shared.weight, std=1.0)
    wire(model, wiring)


@torch.no_grad()
def wire(model: T5ForConditionalGeneration, wiring: Wiring) -> None:
    """As ``wire_copying``, on the embedding the model has, with matrices that are given."""
    d_model, d_kv = model.config.d_model, model.config.d_kv
    address, stored = wiring.address, wiring.stored
    content, turn = wiring.content, wiring.turn
    # The head reads what was copied in turned coordinates: else the decoder's own input, which is
    # in its residual stream, would be repeated for ever.
    model.lm_head.weight = torch.nn.Parameter(model.shared.weight @ turn * d_model**-0.5)

    first = model.encoder.block[0].layer[0].SelfAttention
    first.relative_attention_bias.weight[_PREVIOUS, 0] = 8.0
    first.v.weight[:d_kv] = address
    first.o.weight[:, :d_kv] = 2.0 * stored.T

    look_up = model.decoder.block[_COPY_LAYER].layer[1].EncDecAttention
    for head in range(_COPY_HEADS):
        rows = slice(head * d_kv, (head + 1) * d_kv)
        look_up.q.weight[rows] = 0.25 * address
        look_up.k.weight[rows] = stored
        look_up.v.weight[rows] = content[rows]
    look_up.o.weight[:, : _COPY_HEADS * d_kv] = 2.0 * turn.T @ content.T


def _orthonormal(rows: int, columns: int) -> Tensor:
    matrix: Tensor = torch.nn.init.orthogonal_(torch.empty(rows, columns))
    return matrix
