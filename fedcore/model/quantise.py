"""Frozen weights in fewer bytes: int8 per output channel, nf4 in blocks of 64, or plain bf16.

Only storage is small: each product dequantises the weights to the precision of its input, and the
backward pass dequantises them again instead of keeping them. Activations are never quantised. Our
choices: nf4's blocks lie within a row, its scales are fp32 (0.56 bytes a weight; QLoRA's second
quantisation of the scales would save 0.05 more and is left out).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad

from fedcore.errors import ModelError

BLOCK = 64
INT8_MAX = 127
# The 16 levels of 4-bit NormalFloat: quantiles of N(0, 1) with an exact zero, scaled into [-1, 1]
# (Dettmers et al., QLoRA, arXiv 2305.14314, section 3 and appendix E).
NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
PACK_ELEMENTS = 1 << 18  # weights packed at a time: larger scratch leaves holes between the results
CHUNK_ELEMENTS = 1 << 22  # dequantised at a time: 16 MB in fp32, any matrix of FLAN-T5-large


class Scheme(Protocol):
    """How a matrix is stored."""

    bytes_per_weight: float

    def pack(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """fp32 (out, in) to bytes (out, n) as int8, and fp32 scales (out, m)."""

    def unpack(self, stored: Tensor, scale: Tensor, width: int) -> Tensor:
        """Rows of both back to fp32 (rows, in), where ``in`` is ``width``."""


def _divisor(largest: Tensor) -> Tensor:
    return torch.where(largest > 0, largest, 1.0)


class Int8Scheme:
    bytes_per_weight = 1.0

    def pack(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = weight.abs().amax(1, keepdim=True) / INT8_MAX
        codes = (weight / _divisor(scale)).round_().clamp_(-INT8_MAX, INT8_MAX)
        return codes.to(torch.int8), scale

    def unpack(self, stored: Tensor, scale: Tensor, width: int) -> Tensor:
        del width
        return stored.to(torch.float32).mul_(scale)


class Nf4Scheme:
    bytes_per_weight = 0.5 + 4 / BLOCK

    def pack(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        rows, width = weight.shape
        blocks = pad(weight, (0, -width % BLOCK)).view(rows, -1, BLOCK)
        scale = blocks.abs().amax(2)
        levels = torch.tensor(NF4_LEVELS)
        places = blocks / _divisor(scale)[..., None]
        codes = torch.zeros(places.shape, dtype=torch.uint8, device=weight.device)
        for between in ((levels[1:] + levels[:-1]) / 2).tolist():  # twice as fast as bucketize
            codes += places > between
        codes = codes.view(rows, -1, 2)
        return ((codes[..., 0] << 4) | codes[..., 1]).view(torch.int8), scale

    def unpack(self, stored: Tensor, scale: Tensor, width: int) -> Tensor:
        places = stored.view(torch.uint8).reshape(-1).to(torch.int32)
        pairs = _nf4_pairs(stored.device).index_select(0, places).view(torch.float32)
        rows = len(stored)
        return pairs.view(rows, -1, BLOCK).mul_(scale[..., None]).view(rows, -1)[:, :width]


@lru_cache(maxsize=4)
def _nf4_pairs(device: torch.device) -> Tensor:
    """The two levels of each byte as one 8-byte item: looking these up is the fastest by far."""
    byte = torch.arange(256)
    levels = torch.tensor(NF4_LEVELS)
    pairs = torch.stack([levels[byte >> 4], levels[byte & 15]], 1).contiguous()
    return pairs.view(torch.int64).reshape(-1).to(device)


class Bf16Scheme:
    bytes_per_weight = 2.0

    def pack(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        stored = weight.to(torch.bfloat16).contiguous().view(torch.int8)
        return stored, weight.new_empty(len(weight), 0)

    def unpack(self, stored: Tensor, scale: Tensor, width: int) -> Tensor:
        del scale, width
        return stored.view(torch.bfloat16).to(torch.float32)


SCHEMES: dict[str, Scheme] = {"int8": Int8Scheme(), "nf4": Nf4Scheme(), "bf16": Bf16Scheme()}


class QuantisedLinear(torch.nn.Linear):
    """A frozen matrix stored by a scheme; computes in its input's dtype (or autocast's).

    A subclass so that peft wraps it. ``weight`` holds the stored bytes as int8, which tells peft
    and T5's feed-forward layer not to cast anything to it; ``dequantised`` gives the numbers.
    """

    scale: Tensor

    def __init__(self, weight: Tensor, kind: str) -> None:
        """``weight``: (out, in), any float dtype. Raises ModelError where it is not finite."""
        torch.nn.Module.__init__(self)  # Linear's own would make an fp32 matrix
        self.out_features, self.in_features = weight.shape
        self.kind = kind
        step = max(1, PACK_ELEMENTS // self.in_features)
        for start in range(0, self.out_features, step):
            rows = weight.detach()[start : start + step]
            if not bool(torch.isfinite(rows).all()):
                raise ModelError("holds NaN or infinity and cannot be quantised")
            packed = SCHEMES[kind].pack(rows.to(torch.float32))
            for name, part in zip(("weight", "scale"), packed, strict=True):
                if not start:
                    self.register_buffer(name, part.new_empty(self.out_features, *part.shape[1:]))
                getattr(self, name)[start : start + step] = part
        self.register_parameter("bias", None)

    def rows(self) -> Iterator[tuple[int, int]]:
        """Row ranges small enough to be dequantised at once."""
        step = max(1, CHUNK_ELEMENTS // self.in_features)
        for start in range(0, self.out_features, step):
            yield start, min(start + step, self.out_features)

    def dequantised(
        self, dtype: torch.dtype = torch.float32, start: int = 0, end: int | None = None
    ) -> Tensor:
        """Rows of the matrix as the products see them (rows, in)."""
        stored, scale = self.weight[start:end], self.scale[start:end]
        with torch.no_grad():
            return SCHEMES[self.kind].unpack(stored, scale, self.in_features).to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        x, kind = input, input.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        result: Tensor = _Product.apply(x, self)
        return result

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.kind}"


class _Product(torch.autograd.Function):
    """``x W^T``; both passes dequantise W, which is frozen: neither W nor x is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        parts = [linear(x, layer.dequantised(x.dtype, *rows)) for rows in layer.rows()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total: Tensor | None = None
        for start, end in ctx.layer.rows():
            weight = ctx.layer.dequantised(grad.dtype, start, end)
            part = grad[..., start:end] @ weight
            total = part if total is None else total.add_(part)
        assert total is not None
        return total, None
