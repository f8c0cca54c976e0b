"""Write a frame of fp32 rows in any order, hashed while its pages are in the cache."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch import Tensor

from fedcore.wire.frame import FrameInfo, Layout, header_bytes

HASHED_BYTES = 1 << 20
FP32_BYTES = 4


class FlatWriter:
    """Write the numbers of a frame's fp32 tensors, sorted by name, as one row.

    ``put`` may be called from several threads and in any order; a call that fills the gap after the
    hashed part continues the hash. The file appears under its name only when complete, and is
    removed on any exception inside the ``with`` block.
    """

    def __init__(self, path: Path, layout: Layout, meta: Mapping[str, str]) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        self._head = header_bytes(layout, sorted(layout), {"format": "pt", **meta})
        self._digest = hashlib.sha256()
        self._hashed = len(self._head)
        self._written: dict[int, int] = {}
        self._hashing = threading.Lock()
        self.info: FrameInfo | None = None

    def __enter__(self) -> FlatWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._write(self._head, 0)
        self._digest.update(self._head)
        return self

    def put(self, start: int, numbers: Tensor) -> None:
        """Numbers of the row from place ``start`` on."""
        data = numbers.numpy().data.cast("B")
        position = len(self._head) + start * FP32_BYTES
        self._write(data, position)
        self._written[position] = position + len(data)
        self._continue_hash()

    def _write(self, data: bytes | memoryview, position: int) -> None:
        remaining = memoryview(data)
        while remaining:
            written = os.pwrite(self._file, remaining, position)
            remaining, position = remaining[written:], position + written

    def _continue_hash(self) -> None:
        """Hash all that follows the hashed part without a gap, unless another thread does."""
        while self._hashed in self._written and self._hashing.acquire(blocking=False):
            try:
                while (stop := self._written.pop(self._hashed, None)) is not None:
                    while self._hashed < stop:
                        count = min(HASHED_BYTES, stop - self._hashed)
                        piece = os.pread(self._file, count, self._hashed)
                        self._digest.update(piece)
                        self._hashed += len(piece)
            finally:
                self._hashing.release()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._continue_hash()
                if self._written or self._hashed != os.fstat(self._file).st_size:
                    raise ValueError("the row has gaps: not every number was written")
                os.fsync(self._file)
                self.info = FrameInfo(self._digest.hexdigest(), self._hashed)
                self._part.replace(self._path)
        finally:
            os.close(self._file)
            self._part.unlink(missing_ok=True)
