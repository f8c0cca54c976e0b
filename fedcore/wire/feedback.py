"""Error feedback: the residuals that codecs left of one device's updates in one job.

A file for each round, ``ROUND-UPDATE.safetensors``, named after the update it belongs to. The
server decides which update was accepted. So a killed and repeated attempt starts from the same
residual, and an update that was never accepted leaves the residual before it in force.
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

    def of(self, accepted: AcceptedUpdate | None) -> FrameReader | None:
        """The residual that an accepted update left, if its file is here and complete."""
        path = self._folder / accepted.file if accepted else None
        try:
            return FrameReader(path) if path and path.exists() else None
        except WireError:  # the disk lost what it had confirmed
            return None

    def write(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        meta: Mapping[str, str],
        encoding: Encoding,
        number: int,
        accepted: AcceptedUpdate | None,
    ) -> FrameInfo:
        """Write a round's update plus the last accepted residual; store the new residual.

        The new residual is on the disk before this returns. Those of other rounds are removed,
        except the one that was used: a repeated attempt needs it again.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f"{number}.new"
        info = write_update(path, tensors, meta, encoding, self.of(accepted), fresh)
        residual = AcceptedUpdate(number, info.sha256).file
        if fresh.exists():
            fresh.replace(self._folder / residual)
        for other in self._folder.iterdir():
            if other.name not in (residual, accepted.file if accepted else ""):
                other.unlink(missing_ok=True)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the renames survive a power cut
        finally:
            os.close(folder)
        return info
