"""Local-window attention in the encoder: a token looks at those at most so many places away.

T5 computes its relative position biases in the first block and shares them with the others (umT5:
in each block), in every forward pass: the lowest number there is a mask for the whole encoder.
It spares no product; it shows what sparse attention would learn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def set_window(model: Any, window: int) -> None:
    """Let the encoder look ``window`` places to either side; 0: at everything, as it was made."""
    for block in model.get_encoder().block:
        attention = block.layer[0].SelfAttention
        if not attention.has_relative_attention_bias:
            continue
        attention.__dict__.pop("compute_bias", None)
        if window:
            attention.compute_bias = _within(attention.compute_bias, window)


def _within(compute_bias: Any, window: int) -> Any:
    """The same biases (1, heads, queries, keys), beyond the window the lowest number there is."""

    def windowed(*args: Any, **kwargs: Any) -> Tensor:
        bias: Tensor = compute_bias(*args, **kwargs)
        queries, keys = (torch.arange(size, device=bias.device) for size in bias.shape[-2:])
        far = (queries[:, None] - keys[None, :]).abs() > window
        return bias.masked_fill(far, torch.finfo(bias.dtype).min)

    return windowed
