"""Updates of simulated devices, in the frames and codecs of a launched job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fedcore.formats.codec_chain import PLAIN
from fedcore.formats.wire_offer import AcceptedUpdate
from fedcore.spec.job import JobSpec
from fedcore.wire.feedback import Residuals
from fedcore.wire.frame import FrameInfo
from fedcore.wire.update import Encoding, write_update


class Uplink:
    """One device's uplink: its codec and, with error feedback, its residual.

    A simulated link has no bandwidth to measure, so ``auto`` means fp32 here.
    """

    def __init__(self, spec: JobSpec, slot: int, folder: Path) -> None:
        self._spec, self._slot = spec, slot
        self._chain = spec.wire.chain or PLAIN
        self._residuals = None
        has_feedback = spec.wire.error_feedback and not spec.adapter.averaging.refactors
        if has_feedback and self._chain.lossy:
            self._residuals = Residuals(folder / f"residuals-{slot}")
        self._accepted: AcceptedUpdate | None = None

    def write(self, path: Path, tensors: Mapping[str, Tensor], number: int) -> FrameInfo:
        """Write the update of a round; it counts as accepted."""
        encoding = Encoding.of_update(self._chain, self._spec.seed, number, self._slot)
        meta = {"kind": "update", "slot": str(self._slot)}
        if self._residuals is None:
            return write_update(path, tensors, meta, encoding)
        info = self._residuals.write(path, tensors, meta, encoding, number, self._accepted)
        self._accepted = AcceptedUpdate(number, info.sha256)
        return info
