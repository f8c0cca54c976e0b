"""A codec chain on one tensor: encode it into parts, pack them for a frame, and decode them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.codec_chain import BITMAP, GAPS, Chain, Shapes, bitmap_bytes
from fedcore.formats.frame_header import FrameHeader
from fedcore.formats.update_header import FrameRow, key_in
from fedcore.wire.codecs import LIMIT, VALUES, Codec, Rounding
from fedcore.wire.sparse import top_k
from fedcore.wire.tensor_bytes import DTYPES, pack, unpack

BYTES = ("I8", "U8")


def codec_of(chain: Chain) -> Codec:
    """Its codec on rows of numbers, without zstd: that changes no number, so frames apply it."""
    values = VALUES[chain.values]
    return top_k(chain, values) if chain.top_k < 1 else values


def encode(chain: Chain, name: str, tensor: Tensor, rounding: Rounding) -> dict[str, Tensor]:
    """The parts of one fp32 tensor; none where it is all zero.

    Raises WireError for NaN, infinity and numbers beyond LIMIT.
    """
    row = tensor.detach().to("cpu", torch.float32).contiguous().view(-1)
    return codec_of(chain).encode(row, rounding) if has_values(name, row) else {}


def join(row: FrameRow, tensors: Mapping[str, Tensor]) -> Tensor:
    """The numbers of a row's tensors. Raises as ``encode`` does, for it could not name them."""
    if len(row.tensors) == 1:
        return tensors[row.tensors[0]]
    parts = [(name, tensors[name].detach().to("cpu", torch.float32)) for name in row.tensors]
    for name, part in parts:
        has_values(name, part)
    return torch.cat([part.reshape(-1) for _, part in parts])


def split(row: FrameRow, shapes: Shapes, numbers: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a row by its name, as a view."""
    flat, place = numbers.view(-1), 0
    for name in row.tensors:
        size = math.prod(shapes[name])
        yield name, flat[place : place + size].view(tuple(shapes[name]))
        place += size


def has_values(name: str, numbers: Tensor) -> bool:
    """Whether any number is not zero. Raises WireError where a codec cannot represent one."""
    if not numbers.numel():
        return False
    low, high = (float(edge) for edge in torch.aminmax(numbers))
    if not (low >= -LIMIT and high <= LIMIT):
        raise WireError(
            f"tensor {name!r} holds NaN, infinity or numbers beyond {LIMIT:.1e}; lower the "
            "learning rate or clip gradients"
        )
    return low != 0 or high != 0


def decode(chain: Chain, parts: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """The fp32 tensor of ``encode``'s parts; zeros where there are none."""
    if not parts:
        return torch.zeros(tuple(shape))
    return codec_of(chain).decode(parts, math.prod(shape)).view(tuple(shape))


def array_of(chain: Chain, row: FrameRow, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The one array of a row's parts as a frame stores it, by its name; none where all is zero."""
    if not parts:
        return {}
    if chain.whole:
        return {row.keys[0]: parts["x"].view(row.shape)}
    joined = torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in parts.values()])
    packed = pack(joined) if chain.packed else None
    return {row.keys[0]: joined} if packed is None else {row.keys[1]: packed}


def split_parts(chain: Chain, row: Tensor, n: int) -> dict[str, Tensor]:
    """The parts of ``n`` numbers from their row of bytes."""
    parts, place = {}, 0
    for name, due in chain.parts(n).items():
        piece = row[place : place + due.size]
        # Numbers wider than a byte may be misaligned in the file; a copy aligns them.
        parts[name] = (piece.clone() if due.dtype not in BYTES else piece).view(DTYPES[due.dtype])
        place += due.size
    if chain.top_k < 1:
        rest = row[place:]
        parts[BITMAP if rest.numel() == bitmap_bytes(n) else GAPS] = rest
    return parts


def read_row(
    chain: Chain, header: FrameHeader, arrays: Mapping[str, Tensor], row: FrameRow
) -> Tensor:
    """A row's numbers in fp32 from a frame whose header was checked; zeros where it is left out.

    Raises WireError where the bytes cannot be decoded.
    """
    name = key_in(header, row)
    if name is None:
        return torch.zeros(row.shape)
    array = arrays[name]
    if chain.whole:
        return array.float()
    if name != row.keys[0]:
        array = unpack(array, *chain.payload(row.numbers))
    return decode(chain, split_parts(chain, array, row.numbers), row.shape)


def bound(chain: Chain, tensor: Tensor) -> Tensor:
    """For each number of a tensor, the largest error that the chain makes."""
    row = tensor.detach().to("cpu", torch.float32).contiguous().view(-1)
    return codec_of(chain).bound(row).view(tensor.shape)
