"""Check the header of an encoded update against the model, with the standard library alone.

An encoded frame has rows of bytes. A large tensor is a row of its own; small tensors that are
neighbours in the order of names share a row, since their headers would outweigh them. Rows are
numbered: ``7``, or ``7z`` if zstd made it smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcore.errors import WireError
from fedcore.formats.codec_chain import PLAIN, Chain, Shapes, parse
from fedcore.formats.frame_header import FrameHeader, TensorEntry

WIRE_KEY = "wire"  # metadata key of the codec chain
PACKED_MARK = "z"
DTYPE_NAMES = {
    "F32": "fp32", "BF16": "bf16", "F16": "fp16", "F64": "fp64", "I8": "int8", "U8": "bytes",
}  # fmt: skip
WHOLE_DTYPES = {"fp32": "F32", "bf16": "BF16"}
HEADER_SLACK_BYTES = 65_536  # for a frame's metadata
ENTRY_BYTES = 120  # of one row's header entry without its name
SMALL = 1 << 16  # numbers: larger tensors have a row of their own
JOINED = 1 << 18  # numbers in a row of several tensors, at most


def chain_of(header: FrameHeader) -> Chain:
    """The codec chain in a frame's metadata. Raises WireError for an unknown one."""
    return parse(header.meta.get(WIRE_KEY, str(PLAIN)))


@dataclass(frozen=True)
class FrameRow:
    """Tensors that are encoded together. ``shape``: of a single tensor, or (numbers,) of several.

    ``keys``: the names under which a frame may have the row; the second one means compressed.
    """

    tensors: tuple[str, ...]
    shape: tuple[int, ...]
    keys: tuple[str, ...]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


def rows(chain: Chain, shapes: Shapes) -> tuple[FrameRow, ...]:
    """The rows of a model's tensors, in the order of their names."""
    if chain.whole:
        return tuple(FrameRow((name,), tuple(shapes[name]), (name,)) for name in sorted(shapes))
    # Consecutive small tensors share a row, up to a limit.
    groups: list[list[str]] = []
    filled = JOINED + 1
    for name in sorted(shapes):
        size = math.prod(shapes[name])
        if size > SMALL or filled + size > JOINED:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled = JOINED + 1 if size > SMALL else filled + size
    marks = ("", PACKED_MARK) if chain.packed else ("",)
    encoded = []
    for place, names in enumerate(groups):
        first = tuple(shapes[names[0]])
        shape = first if len(names) == 1 else (sum(math.prod(shapes[name]) for name in names),)
        encoded.append(FrameRow(tuple(names), shape, tuple(f"{place}{mark}" for mark in marks)))
    return tuple(encoded)


def payload_bytes(chain: Chain, shapes: Shapes) -> int:
    """Bytes of an update's tensors on the wire; an upper bound with top-k or zstd."""
    return sum(chain.payload(row.numbers)[1] for row in rows(chain, shapes))


def max_frame_bytes(chain: Chain, shapes: Shapes) -> int:
    """The largest valid frame: tensors, header entries and metadata."""
    names = sum(len(name.encode()) + ENTRY_BYTES for name in shapes)
    return payload_bytes(chain, shapes) + names + HEADER_SLACK_BYTES


def check_update_header(header: FrameHeader, shapes: Shapes, chain: Chain) -> None:
    """Check names, types and sizes against the model's shapes. Raises WireError.

    Except in plain fp32, a row of zeros may be missing.
    """
    known: set[str] = set()
    missing = []
    for row in rows(chain, shapes):
        present = [name for name in row.keys if name in header.tensors]
        known.update(row.keys)
        if len(present) > 1:
            raise WireError(f"{_label(row)} is there twice, as {' and '.join(present)}")
        for name in present:
            _check_entry(row, header.tensors[name], chain, name != row.keys[0])
        if not present and chain.plain:
            missing.append(row.tensors[0])
    unexpected = sorted(set(header.tensors) - known)
    if missing or unexpected:
        example = f"missing {missing[0]!r}" if missing else f"unexpected {unexpected[0]!r}"
        raise WireError(
            f"wrong names: {len(missing)} missing, {len(unexpected)} unexpected ({example})"
        )


def _check_entry(row: FrameRow, entry: TensorEntry, chain: Chain, packed: bool) -> None:
    dtype = WHOLE_DTYPES[chain.values] if chain.whole else "U8"
    if entry.dtype != dtype:
        actual = DTYPE_NAMES.get(entry.dtype, entry.dtype)
        raise WireError(f"{_label(row)} is {actual}, not {DTYPE_NAMES[dtype]}")
    due = list(row.shape) if chain.whole else [entry.elements]
    if list(entry.shape) != due:
        raise WireError(f"{_label(row)} is mis-shaped: {list(entry.shape)} where {due} is due")
    if chain.whole:
        return
    least, most = chain.payload(row.numbers)
    low, high = (1, most - 1) if packed else (least, most)
    if not low <= entry.elements <= high:
        raise WireError(f"{_label(row)} has {entry.elements} bytes where {low} to {high} are due")


def _label(row: FrameRow) -> str:
    first, last = row.tensors[0], row.tensors[-1]
    return f"tensor {first!r}" if first == last else f"the row of tensors {first!r} to {last!r}"


def key_in(header: FrameHeader, row: FrameRow) -> str | None:
    """The name under which a checked frame has a row; None if it is missing."""
    return next((name for name in row.keys if name in header.tensors), None)
