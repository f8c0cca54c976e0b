"""Chains of wire codecs: their names, the parts they make of a tensor, and the bytes of these.

A chain is up to three steps, written ``top_k(0.05)+int8+zstd``: which numbers are kept, how these
are written, and whether the bytes are compressed. Standard library alone: web processes check the
header of an update with it. The numbers themselves are ``fedcore.wire.codecs``.
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
GAP_LIMIT = 255  # a byte of this value says: so many more are left out, and the gap goes on
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


def _int8(n: int) -> Parts:
    return {"scale": EncodedPart("BF16", -(-n // INT8_BLOCK)), "q": EncodedPart("I8", n)}


def _int4(n: int) -> Parts:
    return {"scale": EncodedPart("BF16", -(-n // INT4_BLOCK)), "q": EncodedPart("U8", -(-n // 2))}


# The parts that n numbers become, in their order on the wire.
VALUES: Mapping[str, Callable[[int], Parts]] = {
    "fp32": lambda n: {"x": EncodedPart("F32", n)},
    "bf16": lambda n: {"x": EncodedPart("BF16", n)},
    "fp16": lambda n: {"scale": EncodedPart("F32", 1), "x": EncodedPart("F16", n)},
    "int8": _int8,
    "int4": _int4,
}
WHOLE = ("fp32", "bf16")  # written alone, these leave a tensor what it is: its name and its shape
BITMAP, GAPS = "bitmap", "gaps"  # which numbers were kept: the smaller of the two, after the values


def bitmap_bytes(n: int) -> int:
    """A bit for each number."""
    return -(-n // 8)


def gaps_bytes(n: int, kept: int) -> int:
    """At most: a byte for each gap between two kept numbers, more for long ones."""
    return kept + n // GAP_LIMIT


@dataclass(frozen=True)
class Chain:
    """``top_k`` is the fraction kept (1: all), ``values`` a name of VALUES, ``packed`` zstd."""

    values: str = "fp32"
    top_k: float = 1.0
    packed: bool = False

    def __str__(self) -> str:
        sparse = [f"top_k({self.top_k!r})"] if self.top_k < 1 else []
        return "+".join([*sparse, self.values, *([PACKED] if self.packed else [])])

    @property
    def plain(self) -> bool:
        """Whether the frame is what it is without codecs: every tensor, fp32, by its name."""
        return self == PLAIN

    @property
    def lossy(self) -> bool:
        return self.values != "fp32" or self.top_k < 1

    def kept(self, n: int) -> int:
        """How many of ``n`` numbers are kept: the fraction, rounded up."""
        return n if self.top_k >= 1 else math.ceil(self.top_k * n)

    @property
    def whole(self) -> bool:
        """Whether tensors travel under their own names and in their own shapes."""
        return self.values in WHOLE and self.top_k >= 1 and not self.packed

    def parts(self, n: int) -> Parts:
        """The parts of exact size of ``n`` numbers: the values; top-k's indices follow them."""
        return VALUES[self.values](self.kept(n))

    def payload(self, n: int) -> tuple[int, int]:
        """The least and the most bytes of ``n`` numbers before zstd; one where both are known."""
        kept = self.kept(n)
        size = sum(part.size for part in self.parts(n).values())
        if self.top_k >= 1:
            return size, size
        return size + min(kept, bitmap_bytes(n)), size + min(bitmap_bytes(n), gaps_bytes(n, kept))


PLAIN = Chain()
_TEXT = re.compile(rf"(?:top_k\((?P<top>[0-9.e+-]+)\)\+)?(?P<values>\w+?)(?P<zstd>\+{PACKED})?")


def parse(text: str) -> Chain:
    """The chain of a text; raises WireError that names the known ones."""
    found = _TEXT.fullmatch(text)
    top = _fraction(found["top"]) if found else None
    if found is None or top is None or found["values"] not in VALUES:
        known = ", ".join(VALUES)
        raise WireError(
            f"unknown codec {text[:80]!r}; known: {known}, each alone, after top_k(FRACTION)+ "
            f"and before +{PACKED}"
        )
    return Chain(found["values"], top, found["zstd"] is not None)


def _fraction(text: str | None) -> float | None:
    """1 where there is none, None where it is no fraction."""
    if text is None:
        return 1.0
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1 else None
