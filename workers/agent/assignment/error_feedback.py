"""Writing updates with what former ones still owe, and keeping no more residuals than needed.

A folder for each job under ``feedback`` in the state folder; see ``fedcore.wire.feedback``.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedcore.formats.wire_offer import WireOffer
from workers.agent.assignment.assignment import AssignedWork

if TYPE_CHECKING:
    from torch import Tensor

    from fedcore.wire.frame import FrameInfo

FOLDER = "feedback"

log = logging.getLogger(__name__)


def write(work: AssignedWork, tensors: Mapping[str, Tensor], path: Path, folder: Path) -> FrameInfo:
    """Write an update as the server asked for it. Imports torch."""
    from fedcore.wire.feedback import Residuals
    from fedcore.wire.update import Encoding, write_update

    offer, meta = work.wire, work.update_meta
    encoding = Encoding.of_update(offer.chain, work.spec.seed, work.round, work.slot)
    owed = offer.taken if offer.taken and offer.taken.chain.lossy else None
    keeps = work.spec.wire.error_feedback and not work.spec.adapter.averaging.refactors
    if not keeps or (owed is None and not offer.chain.lossy):
        return write_update(path, tensors, meta, encoding)
    residuals = Residuals(folder / work.job)
    if owed and residuals.of(owed) is None:
        log.warning("what round %d's update lost is not on this disk any more", owed.round)
    return residuals.write(path, tensors, meta, encoding, work.round, owed)


def tidy(folder: Path, offer: WireOffer) -> None:
    """Remove what a folder keeps of jobs that are over."""
    if offer.jobs is None or not folder.is_dir():
        return
    for kept in folder.iterdir():
        if kept.name not in offer.jobs:
            shutil.rmtree(kept, ignore_errors=True)
            log.info("%s of job %s is removed: it is over", folder.name, kept.name[:8])


def forget_when_done(folder: Path, work: AssignedWork) -> None:
    """After the last evaluation of a job nothing is trained in it any more."""
    if work.task == "evaluate" and work.round >= work.spec.rounds:
        shutil.rmtree(folder / work.job, ignore_errors=True)
