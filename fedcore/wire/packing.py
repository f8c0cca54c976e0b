"""zstd as the last step: a tensor's bytes compressed, where that makes them fewer.

The compressed bytes may differ between versions of zstd; what they decode to does not.
"""

from __future__ import annotations

import torch
import zstandard
from torch import Tensor

from fedcore.errors import WireError

LEVEL = 3


def pack(row: Tensor) -> Tensor | None:
    """A row of bytes compressed, or None where that saves nothing."""
    made = zstandard.ZstdCompressor(level=LEVEL).compress(row.numpy().data)
    if len(made) >= row.numel():
        return None
    return torch.frombuffer(bytearray(made), dtype=torch.uint8)


def unpack(packed: Tensor, least: int, most: int) -> Tensor:
    """The row again. Raises WireError for fewer or more bytes than are due; never grows beyond."""
    data = packed.numpy().tobytes()
    try:
        size = zstandard.frame_content_size(data)
        if not max(1, least) <= size <= most:
            raise WireError(f"a compressed tensor has {size} bytes where {most} at most are due")
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=most)
    except zstandard.ZstdError as error:
        raise WireError(f"a compressed tensor cannot be read: {error}") from error
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)
