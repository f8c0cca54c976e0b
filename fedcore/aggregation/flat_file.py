"""A frame's numbers as one flat row, read block by block from a memory map.

All tensors of one type stand in a frame one after another, sorted by name: any two frames of equal
names and shapes are two rows of equal meaning. So a fold needs no tensor boundaries, its blocks are
of one size, and a shard of it is a range of the row.
"""

from __future__ import annotations

import math
import mmap
import tempfile
import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.frame_header import FrameHeader, read_header
from fedcore.formats.update_header import WIRE_KEY
from fedcore.wire.frame import FrameReader
from fedcore.wire.tensor_bytes import DTYPES

Shapes = Mapping[str, tuple[int, ...]]
Span = tuple[int, int]  # [start, stop) of a row
FLAT_TYPES = ("F32", "BF16")  # what a row may be made of; every other frame is decoded first
FLAT_CHAINS = ("fp32", "bf16")


@dataclass(frozen=True)
class FlatLayout:
    """The order of a model's numbers: names sorted, each with its first place and its shape."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    elements: int

    @classmethod
    def of(cls, shapes: Shapes) -> FlatLayout:
        names = tuple(sorted(shapes))
        sides = tuple(tuple(shapes[name]) for name in names)
        ends = tuple(accumulate((math.prod(side) for side in sides), initial=0))
        return cls(names, sides, ends[:-1], ends[-1])

    def name_at(self, place: int) -> str:
        return self.names[bisect_right(self.starts, place) - 1]

    @property
    def frame_layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of each tensor of an fp32 frame of this row, by name."""
        return {n: ("F32", shape) for n, shape in zip(self.names, self.shapes, strict=True)}

    def span(self, name: str) -> Span:
        """First place of a tensor and the place after its last."""
        number = self.names.index(name)
        return self.starts[number], self.starts[number] + math.prod(self.shapes[number])


class Numbers(Protocol):
    """A row of numbers that is read in pieces."""

    def read(self, start: int, stop: int) -> Tensor: ...

    def release(self, start: int, stop: int) -> None: ...


class FlatFile:
    """``elements`` numbers of one type in a file, from byte ``offset`` on; read-only, mapped."""

    def __init__(self, path: Path, dtype: torch.dtype, offset: int, elements: int) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self.path, self.offset, self.item = path, offset, dtype.itemsize
        with warnings.catch_warnings():  # torch warns of read-only memory; nobody writes here
            warnings.simplefilter("ignore", UserWarning)
            self._row = torch.frombuffer(self._map, dtype=dtype, count=elements, offset=offset)

    def read(self, start: int, stop: int) -> Tensor:
        """Numbers [start, stop) in fp32: a view of the file where it is fp32, else a copy."""
        return self._row[start:stop].float()

    def release(self, start: int, stop: int) -> None:
        """Give the pages of [start, stop) back; the page cache keeps them."""
        page = mmap.PAGESIZE
        first = -(-(self.offset + start * self.item) // page) * page
        last = (self.offset + stop * self.item) // page * page
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


Opener = Callable[[Path], Mapping[str, Tensor]]


def open_flat(
    path: Path,
    layout: FlatLayout,
    folder: Path,
    opener: Opener = FrameReader,
    span: Span | None = None,
) -> FlatFile:
    """A file of the row's numbers: a frame of fp32 or bf16 as it is, any other by ``opener``.

    Decoding goes tensor by tensor into a nameless file in ``folder``: it costs the room of one fp32
    model on the disk while the fold runs, and no memory. With a ``span`` only tensors that have a
    number in it are decoded. Raises WireError where the frame does not fit the layout.
    """
    header = read_header(path)
    offset = flat_offset(header, layout)
    if offset is not None:
        dtype = DTYPES[header.tensors[layout.names[0]].dtype]
        return FlatFile(path, dtype, header.data_start + offset, layout.elements)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".row") as out:
        tensors, (first, last) = opener(path), span or (0, layout.elements)
        for name, shape, start in zip(layout.names, layout.shapes, layout.starts, strict=True):
            if start >= last or start + math.prod(shape) <= first:
                continue
            if name not in tensors or tuple(tensors[name].shape) != shape:
                raise WireError(f"tensor {name!r} is missing, or not of shape {list(shape)}")
            out.seek(start * 4)
            out.write(tensors[name].float().contiguous().reshape(-1).numpy().data)
        out.flush()
        out.truncate(layout.elements * 4)
        return FlatFile(Path(out.name), torch.float32, 0, layout.elements)


def flat_offset(header: FrameHeader, layout: FlatLayout) -> int | None:
    """Where the row starts in a frame's data; None where it is not there as one piece.

    It must be in the layout's order, without gaps, of one type, and under no codec.
    """
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    entries = [(entry, name) for name, entry in header.tensors.items() if name in shapes]
    entries.sort(key=lambda pair: (pair[0].start, pair[0].end, pair[1]))
    types = {entry.dtype for entry, _ in entries}
    if (
        header.meta.get(WIRE_KEY, FLAT_CHAINS[0]) not in FLAT_CHAINS
        or len(types) != 1
        or not types <= set(FLAT_TYPES)
        or [name for _, name in entries] != list(layout.names)
        or any(entry.shape != shapes[name] for entry, name in entries)
        or any(one.end != two.start for (one, _), (two, _) in pairwise(entries))
    ):
        return None
    return entries[0][0].start
