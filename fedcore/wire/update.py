"""Updates on the wire: written with a chain of codecs, opened as fp32 tensors again.

What the chain loses of an update is its residual; with error feedback it is added to the device's
next update (Seide et al. 2014; Stich et al. 2018, arXiv 1809.07599). All work is tensor by tensor:
besides the caller's tensors, one encoded and one decoded tensor are in memory at a time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from fedcore.formats.codec_chain import Chain
from fedcore.formats.update_header import WIRE_KEY, FrameRow, chain_of, check_update_header, rows
from fedcore.seeds import derive
from fedcore.wire.chain import array_of, decode, encode, join, read_row, split
from fedcore.wire.codecs import Rounding, StochasticRounding
from fedcore.wire.frame import FrameInfo, FrameReader, FrameWriter, header_bytes, write_frame
from fedcore.wire.tensor_bytes import NAMES

COPIED = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """How one update is written: its chain, and the seed of its stochastic rounding."""

    chain: Chain
    seed: int

    @classmethod
    def of_update(cls, chain: Chain, seed: int, round_number: int, slot: int) -> Encoding:
        """The same at every attempt: from the job's seed, the round and the device's slot."""
        return cls(chain, derive(seed, "wire", round_number, slot))

    def rounding(self, name: str) -> Rounding:
        return StochasticRounding(derive(self.seed, name))


class EncodedWriter:
    """Write a frame whose sizes are known only after encoding; it appears when complete.

    Its arrays, all of one type, are gathered in a nameless file until the header is known.
    """

    def __init__(self, path: Path, meta: Mapping[str, str]) -> None:
        self._path, self._meta = path, {"format": "pt", **meta}
        self._layout: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> EncodedWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        spool = tempfile.TemporaryFile(dir=self._path.parent)
        self._spool: IO[bytes] = self._stack.enter_context(spool)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def put(self, arrays: Mapping[str, Tensor]) -> None:
        for name, array in arrays.items():
            row = array.contiguous().reshape(-1)
            self._layout[name] = (NAMES[array.dtype], tuple(array.shape))
            self._spool.write(row.view(torch.uint8).numpy().data)

    def finish(self) -> FrameInfo:
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._stack.callback(part.unlink, missing_ok=True)
        digest = hashlib.sha256()
        self._spool.seek(0)
        with part.open("wb") as out:
            piece = header_bytes(self._layout, list(self._layout), self._meta)
            while piece:
                out.write(piece)
                digest.update(piece)
                piece = self._spool.read(COPIED)
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        part.replace(self._path)
        return FrameInfo(digest.hexdigest(), size)


def write_update(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, str],
    encoding: Encoding,
    before: Mapping[str, Tensor] | None = None,
    residual: Path | None = None,
) -> FrameInfo:
    """Write an update's fp32 deltas with a chain of codecs.

    ``before`` is the residual to add, ``residual`` the file for the new one (not written where
    nothing can be lost). Raises WireError for numbers that are not finite.
    """
    path, chain = Path(path), encoding.chain
    compensated = _Compensated(tensors, before)
    if chain.plain:
        return write_frame(path, compensated, meta)
    with ExitStack() as stack:
        out = stack.enter_context(EncodedWriter(path, {**meta, WIRE_KEY: str(chain)}))
        lost = None
        if residual is not None and chain.lossy:
            layout = {name: ("F32", tuple(tensors[name].shape)) for name in tensors}
            lost = stack.enter_context(FrameWriter(residual, layout, {"kind": "residual"}))
        shapes = {name: tuple(tensors[name].shape) for name in tensors}
        for row in rows(chain, shapes):
            numbers = join(row, compensated)
            parts = encode(chain, row.tensors[0], numbers, encoding.rounding(row.tensors[0]))
            out.put(array_of(chain, row, parts))
            if lost is not None:
                rest = numbers.reshape(row.shape) - decode(chain, parts, row.shape)
                for name, tensor in split(row, shapes, rest):
                    lost.write(name, tensor)
        return out.finish()


class _Compensated(Mapping[str, Tensor]):
    """An update plus the residual of an earlier one, tensor by tensor."""

    def __init__(self, tensors: Mapping[str, Tensor], before: Mapping[str, Tensor] | None) -> None:
        self._tensors, self._before = tensors, before

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name].float()
        return tensor if self._before is None else tensor + self._before[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class UpdateReader(Mapping[str, Tensor]):
    """An update's frame as fp32 tensors by the model's names; each look-up decodes its row."""

    def __init__(self, path: Path | str, shapes: Mapping[str, Sequence[int]]) -> None:
        self.frame = FrameReader(path)
        self.header = self.frame.header
        self.chain = chain_of(self.header)
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        check_update_header(self.header, self.shapes, self.chain)
        frame_rows = rows(self.chain, self.shapes)
        self._rows = {name: row for row in frame_rows for name in row.tensors}
        self._last: tuple[FrameRow, dict[str, Tensor]] | None = None

    @property
    def meta(self) -> Mapping[str, str]:
        return self.header.meta

    @property
    def size_bytes(self) -> int:
        return self.header.size

    def __getitem__(self, name: str) -> Tensor:
        row = self._rows[name]
        if len(row.tensors) == 1:
            return read_row(self.chain, self.header, self.frame, row)
        if self._last is None or self._last[0] is not row:
            numbers = read_row(self.chain, self.header, self.frame, row)
            self._last = row, dict(split(row, self.shapes, numbers))
        return self._last[1][name].clone()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.shapes))

    def __len__(self) -> int:
        return len(self.shapes)


def open_update(
    path: Path | str, shapes: Mapping[str, Sequence[int]]
) -> UpdateReader | FrameReader:
    """Open an update's frame as fp32 tensors, whatever its chain; a plain one as it is.

    Raises WireError where its header does not fit the shapes.
    """
    reader = UpdateReader(path, shapes)
    return reader if not reader.chain.plain else reader.frame
