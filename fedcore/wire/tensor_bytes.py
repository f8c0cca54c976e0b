"""Tensors as bytes: the types a frame may hold, and zstd as the last step of a codec chain.

The compressed bytes may differ between versions of zstd; what they decode to does not.
"""

from __future__ import annotations

import torch
import zstandard
from torch import Tensor

from fedcore.errors import WireError

DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I8": torch.int8,
    "U8": torch.uint8,
}  # by their safetensors names
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LEVEL = 3


def pack(row: Tensor) -> Tensor | None:
    """A row of bytes compressed, or None where that saves nothing."""
    compressed = zstandard.ZstdCompressor(level=LEVEL).compress(row.numpy().data)
    if len(compressed) >= row.numel():
        return None
    return torch.frombuffer(bytearray(compressed), dtype=torch.uint8)


def unpack(packed: Tensor, least: int, most: int) -> Tensor:
    """The row again. Raises WireError where it is not of ``least`` to ``most`` bytes.

    Never allocates more than ``most``.
    """
    data = packed.numpy().tobytes()
    try:
        size = zstandard.frame_content_size(data)
        if not max(1, least) <= size <= most:
            raise WireError(f"a compressed tensor has {size} bytes where {most} at most are due")
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=most)
    except zstandard.ZstdError as error:
        raise WireError(f"a compressed tensor cannot be read: {error}") from error
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)
