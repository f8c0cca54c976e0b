"""What codecs lost of one device's updates in one job, kept until it has been made up for.

A file for each round, ``ROUND-UPDATE.safetensors``, named after the update it belongs to. Which
update was taken is the server's to say, so a killed and repeated attempt starts from the same
residual, and an update that was never taken leaves the former one in force.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fedcore.errors import WireError
from fedcore.formats.wire_offer import AcceptedUpdate
from fedcore.wire.frame import FrameInfo, FrameReader
from fedcore.wire.update import Encoding, write_update


class Residuals:
    """The residuals in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, taken: AcceptedUpdate | None) -> FrameReader | None:
        """The residual that an update left, if it is here and whole."""
        path = self._folder / taken.file if taken else None
        try:
            return FrameReader(path) if path and path.exists() else None
        except WireError:  # a disk that lost what it had said to have written
            return None

    def write(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        meta: Mapping[str, str],
        encoding: Encoding,
        number: int,
        taken: AcceptedUpdate | None,
    ) -> FrameInfo:
        """Write a round's update with the residual of the one before; keep what is lost now.

        The new residual is on the disk before this returns; those of other rounds are removed, but
        for the one that was used, which a repeated attempt needs again.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f"{number}.new"
        info = write_update(path, tensors, meta, encoding, self.of(taken), fresh)
        kept = AcceptedUpdate(number, info.sha256).file
        if fresh.exists():
            fresh.replace(self._folder / kept)
        self._forget({kept, taken.file if taken else ""})
        return info

    def _forget(self, keep: set[str]) -> None:
        for path in self._folder.iterdir():
            if path.name not in keep:
                path.unlink(missing_ok=True)
        _sync(self._folder)


def _sync(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
