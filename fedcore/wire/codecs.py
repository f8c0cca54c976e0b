"""Wire codecs as values: a row of fp32 numbers to named parts and back, with an error bound.

``bound`` gives, for each number of a row, the largest |x - decode(encode(x))| there can be. All
codecs map zero to zero. They work on pieces of a row that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from fedcore.formats.codec_chain import INT4_BLOCK, INT8_BLOCK

Parts = Mapping[str, Tensor]

PIECE = 1 << 17  # numbers worked on at once; a multiple of every block
LIMIT = 2.0**126  # no number beyond this is taken, so that no decoded one overflows
SMALLEST_SCALE = 2.0**-126
ROUNDED = 1 + 2.0**-15  # what fp32 arithmetic may add to a bound
PER_WORD = 4  # 16-bit numbers in one 64-bit random word


class Rounding(Protocol):
    """Gives ``count`` numbers in [0, 1) to add before rounding down; each call goes on."""

    def take(self, count: int) -> Tensor: ...


class NearestRounding:
    """Round to the nearest: half a step, always."""

    def take(self, count: int) -> Tensor:
        return torch.full((count,), 0.5)


class StochasticRounding:
    """Unbiased rounding up or down, the same on every machine.

    Adds uniform multiples of 2**-16 from the counter-based generator Philox 4x64 (Salmon et al.
    2011), keyed with ``seed``.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=seed)

    def take(self, count: int) -> Tensor:
        """``count`` must be a multiple of 4, except in the last call."""
        words = self._bits.random_raw(-(-count // PER_WORD))
        halves = torch.from_numpy(words.astype("<u8", copy=False).view(np.int16)[:count])
        return halves.float().add_(2.0**15).mul_(2.0**-16)


@dataclass(frozen=True)
class Codec:
    """``encode`` takes an fp32 row within LIMIT; ``decode`` takes its parts and its length."""

    encode: Callable[[Tensor, Rounding], dict[str, Tensor]]
    decode: Callable[[Parts, int], Tensor]
    bound: Callable[[Tensor], Tensor]


FP32 = Codec(
    lambda row, _rounding: {"x": row},
    lambda parts, _n: parts["x"].reshape(-1),
    torch.zeros_like,
)
BF16 = Codec(
    lambda row, _rounding: {"x": row.bfloat16()},
    lambda parts, _n: parts["x"].reshape(-1).float(),
    lambda row: row.abs() * 2.0**-8 + 2.0**-134,
)


def _half_scale(row: Tensor) -> Tensor:
    """The power of two that brings the largest number into [2**14, 2**15]."""
    peak = row.abs().amax() if row.numel() else torch.zeros(())
    exponent = torch.frexp(peak).exponent - 15
    return torch.ldexp(torch.ones(()), exponent.clamp(-126)).reshape(1)


def _encode_fp16(row: Tensor, _rounding: Rounding) -> dict[str, Tensor]:
    scale = _half_scale(row)
    return {"scale": scale, "x": (row / scale).half()}


FP16 = Codec(
    _encode_fp16,
    lambda parts, _n: parts["x"].reshape(-1).float() * parts["scale"],
    lambda row: (row.abs() * 2.0**-11 + _half_scale(row) * 2.0**-25) * ROUNDED,
)


def _scales(rows: Tensor, levels: int) -> Tensor:
    """Step of each block (blocks, numbers) in bf16, rounded up so that no number falls outside."""
    peak = rows.abs().amax(1)
    step = (peak / levels).clamp(min=SMALLEST_SCALE) * (peak > 0)
    up = (step.view(torch.int32) + 0xFFFF) & -0x10000
    return up.view(torch.float32).bfloat16()


def _blocks(piece: Tensor, block: int) -> Tensor:
    return pad(piece, (0, -piece.numel() % block)).view(-1, block)


def _quantise(row: Tensor, levels: int, block: int, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """Whole steps from -levels to levels (int8) and the step of each block (bf16)."""
    codes = torch.empty(row.numel(), dtype=torch.int8)
    scales = torch.empty(-(-row.numel() // block), dtype=torch.bfloat16)
    for start in range(0, row.numel(), PIECE):
        piece = row[start : start + PIECE]
        rows = _blocks(piece, block)
        scale = _scales(rows, levels)
        step = scale.float().masked_fill_(scale == 0, 1.0).unsqueeze(1)
        steps = (rows / step).view(-1)
        steps.add_(rounding.take(steps.numel())).floor_().clamp_(-levels, levels)
        codes[start : start + PIECE] = steps[: piece.numel()]
        scales[start // block : start // block + scale.numel()] = scale
    return codes, scales


def _restore(codes: Tensor, scales: Tensor, block: int) -> Tensor:
    row = codes.float()
    full_blocks = row.numel() // block
    row[: full_blocks * block].view(-1, block).mul_(scales[:full_blocks].float().unsqueeze(1))
    if full_blocks < scales.numel():
        row[full_blocks * block :].mul_(scales[full_blocks].float())
    return row


def _step_bound(row: Tensor, levels: int, block: int) -> Tensor:
    """One step of its block for each number."""
    if not row.numel():
        return torch.zeros_like(row)
    steps = _scales(_blocks(row, block), levels).float()
    return steps.repeat_interleave(block)[: row.numel()] * ROUNDED


def _encode_int8(row: Tensor, rounding: Rounding) -> dict[str, Tensor]:
    codes, scales = _quantise(row, 127, INT8_BLOCK, rounding)
    return {"scale": scales, "q": codes}


INT8 = Codec(
    _encode_int8,
    lambda parts, _n: _restore(parts["q"], parts["scale"], INT8_BLOCK),
    lambda row: _step_bound(row, 127, INT8_BLOCK),
)


def _encode_int4(row: Tensor, rounding: Rounding) -> dict[str, Tensor]:
    """Two numbers a byte, the first one low; 8 stands for zero."""
    codes, scales = _quantise(row, 7, INT4_BLOCK, rounding)
    nibbles = pad(codes, (0, codes.numel() % 2)).add_(8).view(torch.uint8).view(-1, 2)
    return {"scale": scales, "q": nibbles[:, 0] | (nibbles[:, 1] << 4)}


def _decode_int4(parts: Parts, n: int) -> Tensor:
    both = parts["q"]
    codes = torch.stack((both & 15, both >> 4), 1).view(torch.int8).view(-1)[:n]
    return _restore(codes - 8, parts["scale"], INT4_BLOCK)


INT4 = Codec(_encode_int4, _decode_int4, lambda row: _step_bound(row, 7, INT4_BLOCK))

# The arithmetic of each name in ``fedcore.formats.codec_chain.VALUES``.
VALUES: Mapping[str, Codec] = {"fp32": FP32, "bf16": BF16, "fp16": FP16, "int8": INT8, "int4": INT4}
