"""Whether the header of an encoded update fits the model: stdlib alone, no number is read.

An encoded frame holds rows of bytes. A large tensor is a row; small ones that are neighbours among
the model's sorted names share one (their names and headers would outweigh them). Rows are numbered:
``7``, or ``7z`` where zstd made it smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcore.errors import WireError
from fedcore.formats.codec_chain import PLAIN, Chain, Shapes, parse
from fedcore.formats.frame_header import FrameHeader, TensorEntry

WIRE_KEY = "wire"  # the metadata key that says which chain a frame was written with
PACKED_MARK = "z"
SPOKEN = {
    "F32": "fp32", "BF16": "bf16", "F16": "fp16", "F64": "fp64", "I8": "int8", "U8": "bytes",
}  # fmt: skip
WHOLE_DTYPES = {"fp32": "F32", "bf16": "BF16"}
HEADER_SLACK_BYTES = 65_536  # of a frame's metadata
ENTRY_BYTES = 120  # of one row's header entry, its name left out
SMALL = 1 << 16  # numbers: larger tensors have a row of their own
JOINED = 1 << 18  # numbers at most in a row of several tensors


def chain_of(header: FrameHeader) -> Chain:
    """The chain a frame says it was written with. Raises WireError for an unknown one."""
    return parse(header.meta.get(WIRE_KEY, str(PLAIN)))


@dataclass(frozen=True)
class FrameRow:
    """Tensors that travel as one. ``shape`` is that of the only one, or (numbers,) of all.

    ``held`` are the names a frame may hold it under; the second one says compressed.
    """

    tensors: tuple[str, ...]
    shape: tuple[int, ...]
    held: tuple[str, ...]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


def rows(chain: Chain, shapes: Shapes) -> tuple[FrameRow, ...]:
    """The rows of a model's tensors, in the order of their names."""
    if chain.whole:
        return tuple(FrameRow((name,), tuple(shapes[name]), (name,)) for name in sorted(shapes))
    marks = ("", PACKED_MARK) if chain.packed else ("",)
    found = []
    for place, names in enumerate(_neighbours(shapes)):
        alone = tuple(shapes[names[0]])
        shape = alone if len(names) == 1 else (sum(math.prod(shapes[name]) for name in names),)
        found.append(FrameRow(tuple(names), shape, tuple(f"{place}{mark}" for mark in marks)))
    return tuple(found)


def _neighbours(shapes: Shapes) -> list[list[str]]:
    """Names that share a row: small tensors one after another, up to a limit."""
    groups: list[list[str]] = []
    filled = JOINED + 1
    for name in sorted(shapes):
        size = math.prod(shapes[name])
        if size > SMALL or filled + size > JOINED:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled = JOINED + 1 if size > SMALL else filled + size
    return groups


def payload_bytes(chain: Chain, shapes: Shapes) -> int:
    """Bytes of an update's tensors on the wire; at most so many with top-k or zstd."""
    return sum(chain.payload(row.numbers)[1] for row in rows(chain, shapes))


def max_frame_bytes(chain: Chain, shapes: Shapes) -> int:
    """The largest frame that an honest device sends: tensors, header entries and metadata."""
    names = sum(len(name.encode()) + ENTRY_BYTES for name in shapes)
    return payload_bytes(chain, shapes) + names + HEADER_SLACK_BYTES


def check_update_header(header: FrameHeader, shapes: Shapes, chain: Chain) -> None:
    """Check names, types and sizes against the model's shapes.

    A row that is all zero may be left out, but for plain fp32. Raises WireError with the reason.
    """
    known: set[str] = set()
    missing = []
    for row in rows(chain, shapes):
        found = [name for name in row.held if name in header.tensors]
        known.update(row.held)
        if len(found) > 1:
            raise WireError(f"{_called(row)} is there twice, as {' and '.join(found)}")
        for name in found:
            _check_entry(row, header.tensors[name], chain, name != row.held[0])
        if not found and chain.plain:
            missing.append(row.tensors[0])
    strange = sorted(set(header.tensors) - known)
    if missing or strange:
        example = f"missing {missing[0]!r}" if missing else f"unexpected {strange[0]!r}"
        raise WireError(
            f"wrong names: {len(missing)} missing, {len(strange)} unexpected ({example})"
        )


def _check_entry(row: FrameRow, entry: TensorEntry, chain: Chain, packed: bool) -> None:
    dtype = WHOLE_DTYPES[chain.values] if chain.whole else "U8"
    if entry.dtype != dtype:
        found = SPOKEN.get(entry.dtype, entry.dtype)
        raise WireError(f"{_called(row)} is {found}, not {SPOKEN[dtype]}")
    due = list(row.shape) if chain.whole else [entry.elements]
    if list(entry.shape) != due:
        raise WireError(f"{_called(row)} is mis-shaped: {list(entry.shape)} where {due} is due")
    if chain.whole:
        return
    least, most = chain.payload(row.numbers)
    low, high = (1, most - 1) if packed else (least, most)
    if not low <= entry.elements <= high:
        raise WireError(f"{_called(row)} has {entry.elements} bytes where {low} to {high} are due")


def _called(row: FrameRow) -> str:
    first, last = row.tensors[0], row.tensors[-1]
    return f"tensor {first!r}" if first == last else f"the row of tensors {first!r} to {last!r}"


def key_in(header: FrameHeader, row: FrameRow) -> str | None:
    """Under which of its names a checked frame holds a row; None: it was left out."""
    return next((name for name in row.held if name in header.tensors), None)
