"""Frames: safetensors files written deterministically and read tensor by tensor.

The safetensors library keeps metadata in an unordered map, so equal content may become different
bytes. Artefacts are named by the SHA-256 of their bytes; therefore the writer here fixes the order:
wider types first (alignment), then by name; JSON keys sorted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.codec_chain import PLAIN
from fedcore.formats.frame_header import ITEM_BYTES, FrameHeader, read_header, sha256_file
from fedcore.formats.update_header import WIRE_KEY, chain_of, check_update_header, rows
from fedcore.wire.chain import read_row, split
from fedcore.wire.tensor_bytes import DTYPES, NAMES

__all__ = [
    "FrameInfo",
    "FrameReader",
    "FrameWriter",
    "check_frame",
    "check_header",
    "sha256_file",
    "write_frame",
]

DEFAULTS = {WIRE_KEY: str(PLAIN)}  # of metadata that a frame leaves out

Layout = Mapping[str, tuple[str, Sequence[int]]]


@dataclass(frozen=True)
class FrameInfo:
    """A written frame: SHA-256 (hex) and size in bytes."""

    sha256: str
    size: int


class FrameWriter:
    """Write a frame tensor by tensor; the file appears under its name only when complete.

    ``layout`` maps each name to (safetensors dtype, shape). Tensors must come in ``order``. On any
    exception inside the ``with`` block the temporary file is removed.
    """

    def __init__(self, path: Path | str, layout: Layout, meta: Mapping[str, str]) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._layout = layout
        self.order = sorted(layout, key=lambda name: (-ITEM_BYTES[layout[name][0]], name))
        self._waiting = list(reversed(self.order))
        self._digest = hashlib.sha256()
        self._meta = {"format": "pt", **meta}
        self.info: FrameInfo | None = None

    def __enter__(self) -> FrameWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self._part.open("wb")
        self._put(header_bytes(self._layout, self.order, self._meta))
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        """Append the next tensor of ``order``; its dtype and shape must be those of the layout."""
        dtype, shape = self._layout[name]
        if not self._waiting or self._waiting.pop() != name:
            raise ValueError(f"tensor {name!r} is out of turn")
        if tuple(tensor.shape) != tuple(shape) or tensor.dtype != DTYPES[dtype]:
            raise ValueError(f"tensor {name!r} is not {dtype} {tuple(shape)}")
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        self._put(flat.view(torch.uint8).numpy().data)

    def _put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self._waiting:
                    raise ValueError(f"{len(self._waiting)} tensors were never written")
                self._file.flush()
                os.fsync(self._file.fileno())
                self.info = FrameInfo(self._digest.hexdigest(), self._file.tell())
                self._part.replace(self._path)
        finally:
            self._file.close()
            self._part.unlink(missing_ok=True)


def header_bytes(layout: Layout, order: Sequence[str], meta: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(sorted(meta.items()))}
    position = 0
    for name in order:
        dtype, shape = layout[name]
        end = position + ITEM_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def write_frame(
    path: Path | str, tensors: Mapping[str, Tensor], meta: Mapping[str, str]
) -> FrameInfo:
    """Write tensors (of DTYPES) and text metadata; equal content gives equal bytes."""
    layout = {name: (NAMES[item.dtype], tuple(item.shape)) for name, item in tensors.items()}
    with FrameWriter(path, layout, meta) as writer:
        for name in writer.order:
            writer.write(name, tensors[name])
    assert writer.info is not None
    return writer.info


class FrameReader(Mapping[str, Tensor]):
    """A frame as a mapping from name to tensor; each look-up reads that tensor alone (mmap)."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.header: FrameHeader = read_header(self.path)
        try:
            self._file = safe_open(str(path), framework="pt")
        except (SafetensorError, OSError) as error:
            raise WireError(f"{self.path.name} is no readable safetensors file") from error

    @property
    def meta(self) -> Mapping[str, str]:
        return self.header.meta

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.header.shapes

    @property
    def size_bytes(self) -> int:
        return self.header.size

    @property
    def layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {name: (item.dtype, item.shape) for name, item in self.header.tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.header.tensors:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.header.tensors))

    def __len__(self) -> int:
        return len(self.header.tensors)


def check_frame(
    path: Path | str,
    expected: Mapping[str, Sequence[int]],
    meta: Mapping[str, str],
    max_bytes: int,
) -> FrameHeader:
    """Check an update as ``check_header`` does, and that every number in it is finite.

    Decodes one row at a time.
    """
    header = check_header(path, expected, meta, max_bytes)
    chain, reader = chain_of(header), FrameReader(path)
    for row in rows(chain, expected):
        for name, tensor in split(row, expected, read_row(chain, header, reader, row)):
            if not bool(torch.isfinite(tensor).all()):
                raise WireError(f"tensor {name!r} holds NaN or infinity; the update is refused")
    return header


def check_header(
    path: Path | str,
    expected: Mapping[str, Sequence[int]],
    meta: Mapping[str, str],
    max_bytes: int,
) -> FrameHeader:
    """Check the header of an update from outside; raise WireError with the reason.

    ``expected`` maps each name to its shape, ``meta`` each metadata key to the value it must have
    (such as kind, job and base). Reads no numbers: the fold refuses those that are not finite.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > max_bytes:
        raise WireError(f"the frame is oversized: {size} bytes where {max_bytes} are allowed")
    header = read_header(path)
    for key, value in meta.items():
        actual = header.meta.get(key)
        if header.meta.get(key, DEFAULTS.get(key)) == value:
            continue
        if key == "base":
            raise WireError(
                f"foreign base: the frame was made from {str(actual)[:12]!r}, "
                f"this round started from {value[:12]!r}"
            )
        raise WireError(f"the frame has {key}={actual!r} where {value!r} is due")
    check_update_header(header, expected, chain_of(header))
    return header
