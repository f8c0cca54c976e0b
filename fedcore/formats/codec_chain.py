"""Codec chains: their text form, the arrays they encode a tensor as, and the sizes of these.

A chain has up to three steps, written ``top_k(0.05)+int8+zstd``: sparsification, the precision of
the remaining numbers, and compression. It needs the standard library alone, so web processes can
check the header of an update. ``fedcore.wire.codecs`` encodes the numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedcore.errors import WireError
from fedcore.formats.frame_header import ITEM_BYTES

INT8_BLOCK = 128  # numbers that share a scale
INT4_BLOCK = 64
GAP_LIMIT = 255  # a byte of this value: the gap is longer, and the next byte continues it
PACKED = "zstd"

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class EncodedPart:
    """One array of an encoded tensor: its safetensors dtype and its items."""

    dtype: str
    items: int

    @property
    def size(self) -> int:
        return self.items * ITEM_BYTES[self.dtype]


Parts = Mapping[str, EncodedPart]


# The parts that encode n numbers, in their order on the wire.
VALUES: Mapping[str, Callable[[int], Parts]] = {
    "fp32": lambda n: {"x": EncodedPart("F32", n)},
    "bf16": lambda n: {"x": EncodedPart("BF16", n)},
    "fp16": lambda n: {"scale": EncodedPart("F32", 1), "x": EncodedPart("F16", n)},
    "int8": lambda n: {
        "scale": EncodedPart("BF16", -(-n // INT8_BLOCK)),
        "q": EncodedPart("I8", n),
    },
    "int4": lambda n: {
        "scale": EncodedPart("BF16", -(-n // INT4_BLOCK)),
        "q": EncodedPart("U8", -(-n // 2)),  # two numbers a byte
    },
}
WHOLE = ("fp32", "bf16")  # alone, these leave a tensor its name and shape
BITMAP, GAPS = "bitmap", "gaps"  # indices of top-k: the smaller of the two, after the values


def bitmap_bytes(n: int) -> int:
    """Bytes of a bitmap of n numbers."""
    return -(-n // 8)


def gaps_bytes(n: int, count: int) -> int:
    """Upper bound: one byte for each gap before a selected number, more for long gaps."""
    return count + n // GAP_LIMIT


@dataclass(frozen=True)
class Chain:
    """``top_k``: fraction of the numbers sent (1: all); ``values``: a key of VALUES; ``packed``:
    compressed with zstd."""

    values: str = "fp32"
    top_k: float = 1.0
    packed: bool = False

    def __str__(self) -> str:
        sparse = [f"top_k({self.top_k!r})"] if self.top_k < 1 else []
        return "+".join([*sparse, self.values, *([PACKED] if self.packed else [])])

    @property
    def plain(self) -> bool:
        """Whether there is no codec: every tensor in fp32 under its own name."""
        return self == PLAIN

    @property
    def lossy(self) -> bool:
        return self.values != "fp32" or self.top_k < 1

    def top_k_count(self, n: int) -> int:
        """How many of ``n`` numbers are sent: the fraction, rounded up."""
        return n if self.top_k >= 1 else math.ceil(self.top_k * n)

    @property
    def whole(self) -> bool:
        """Whether tensors have their own names and shapes on the wire."""
        return self.values in WHOLE and self.top_k >= 1 and not self.packed

    def parts(self, n: int) -> Parts:
        """The parts of known size that encode ``n`` numbers; the indices of top-k follow them."""
        return VALUES[self.values](self.top_k_count(n))

    def payload(self, n: int) -> tuple[int, int]:
        """(least, most) bytes of ``n`` numbers before zstd."""
        count = self.top_k_count(n)
        size = sum(part.size for part in self.parts(n).values())
        if self.top_k >= 1:
            return size, size
        bitmap = bitmap_bytes(n)
        return size + min(count, bitmap), size + min(bitmap, gaps_bytes(n, count))


PLAIN = Chain()
_TEXT = re.compile(rf"(?:top_k\((?P<top>[0-9.e+-]+)\)\+)?(?P<values>\w+?)(?P<zstd>\+{PACKED})?")


def parse(text: str) -> Chain:
    """The chain of a text. Raises WireError, which lists the known codecs."""
    match = _TEXT.fullmatch(text)
    try:
        top_k = float(match["top"]) if match and match["top"] else None
    except ValueError:
        top_k = math.nan
    valid = top_k is None or 0 < top_k < 1
    if match is None or not valid or match["values"] not in VALUES:
        known = ", ".join(VALUES)
        raise WireError(
            f"unknown codec {text[:80]!r}; known: {known}, each alone, after top_k(FRACTION)+ "
            f"and before +{PACKED}"
        )
    return Chain(match["values"], 1.0 if top_k is None else top_k, match["zstd"] is not None)
