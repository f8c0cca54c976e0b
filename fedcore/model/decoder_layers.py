"""The last decoder layers as what trains: they travel whole, everything else stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def attach(model: Any, last: int) -> Any:
    """Freeze the model but its last ``last`` decoder layers, which become fp32."""
    model.requires_grad_(False)
    for block in model.decoder.block[-last:]:
        block.to(torch.float32).requires_grad_(True)
    return model


def layer_names(names: Iterator[str], layers: int, last: int) -> Iterator[str]:
    """Those names of weights that are of the last ``last`` of so many decoder layers."""
    prefixes = tuple(f"decoder.block.{number}." for number in range(max(0, layers - last), layers))
    return (name for name in names if name.startswith(prefixes))
