"""Local-window attention in the encoder: a token attends to at most so many places either side.

T5 computes its relative position biases in the first block and shares them with the others (umT5:
in each block), in every forward pass. The lowest possible bias masks a pair for the whole encoder.
This saves no computation; it shows what sparse attention would learn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def set_window(model: Any, window: int) -> None:
    """Let the encoder attend ``window`` places to either side; 0: to everything, as in T5."""
    for block in model.get_encoder().block:
        attention = block.layer[0].SelfAttention
        if not attention.has_relative_attention_bias:
            continue
        attention.__dict__.pop("compute_bias", None)
        if window:
            attention.compute_bias = _windowed(attention.compute_bias, window)


def _windowed(compute_bias: Any, window: int) -> Any:
    """``compute_bias`` (1, heads, queries, keys) with the lowest bias beyond the window."""

    def windowed(*args: Any, **kwargs: Any) -> Tensor:
        bias: Tensor = compute_bias(*args, **kwargs)
        queries, keys = (torch.arange(size, device=bias.device) for size in bias.shape[-2:])
        far = (queries[:, None] - keys[None, :]).abs() > window
        return bias.masked_fill(far, torch.finfo(bias.dtype).min)

    return windowed
