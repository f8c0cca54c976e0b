"""Headers of safetensors files, and file hashes, with the standard library alone.

A safetensors file is 8 bytes of little-endian header length, a JSON header and the tensors' bytes.
Web processes use this to check a frame without loading a tensor library.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fedcore.errors import WireError

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: its dtype (safetensors name), shape and bytes [start, end) after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class FrameHeader:
    """A frame's header. ``data_start``: offset of the first tensor byte; ``size``: of the file."""

    tensors: Mapping[str, TensorEntry]
    meta: Mapping[str, str]
    data_start: int
    size: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.tensors.items()}

    @property
    def elements(self) -> int:
        return sum(entry.elements for entry in self.tensors.values())


def read_header(path: Path | str) -> FrameHeader:
    """Parse and check a header; the tensors' bytes are not read.

    Raises WireError if the file is not safetensors, is truncated or padded, has overlapping or
    missing byte ranges or duplicate names, or if a range does not fit its shape and dtype.
    """
    path = Path(path)
    with path.open("rb") as file:
        return parse_header(file, path.stat().st_size, path.name)


def parse_header(file: IO[bytes], size: int, name: str) -> FrameHeader:
    """The same from an open file of ``size`` bytes; ``name`` is for the errors."""
    prefix = file.read(8)
    if len(prefix) < 8:
        raise WireError(f"{name} is truncated: {size} bytes hold no header")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES:
        raise WireError(f"{name} is no safetensors file: its header length is nonsense")
    if 8 + length > size:
        raise WireError(f"{name} is truncated inside its header ({size} bytes)")
    raw = file.read(length)
    try:
        values = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise WireError(f"{name} is no safetensors file: its header is no JSON") from error
    if not isinstance(values, dict):
        raise WireError(f"{name} is no safetensors file: its header is no JSON object")
    meta = values.pop("__metadata__", {})
    if not isinstance(meta, dict) or not all(isinstance(item, str) for item in meta.values()):
        raise WireError(f"{name} carries metadata that is not text")
    tensors = {key: _entry(key, item) for key, item in values.items()}
    position, data_bytes = 0, size - 8 - length
    for entry in sorted(tensors.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != position:
            raise WireError(f"{name} has overlapping or missing byte ranges")
        position = entry.end
    if data_bytes < position:
        raise WireError(f"{name} is truncated: {position - data_bytes} bytes are missing")
    if data_bytes > position:
        raise WireError(f"{name} has {data_bytes - position} bytes that belong to no tensor")
    return FrameHeader(tensors, meta, 8 + length, size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise WireError("the frame's header has a key twice")
    return values


def _entry(name: str, item: Any) -> TensorEntry:
    try:
        dtype, shape = item["dtype"], item["shape"]
        start, end = item["data_offsets"]
        numbers = [start, end, *shape]
        valid = all(type(number) is int and number >= 0 for number in numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"tensor {name!r} has a malformed header entry") from error
    if not valid or dtype not in ITEM_BYTES:
        raise WireError(f"tensor {name!r} has a malformed header entry")
    entry = TensorEntry(dtype, tuple(shape), start, end)
    if end - start != entry.elements * ITEM_BYTES[dtype]:
        raise WireError(f"tensor {name!r}: {end - start} bytes do not fit its shape {list(shape)}")
    return entry


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes as hex, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
