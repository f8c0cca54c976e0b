"""Error feedback: adds to an update what lossy codecs dropped from earlier ones.

Residuals are kept in ``feedback`` in the state folder, one folder per job; see
``fedcore.wire.feedback``.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedcore.formats.wire_offer import WireOffer
from workers.agent.assignment.assigned_work import AssignedWork

if TYPE_CHECKING:
    from torch import Tensor

    from fedcore.wire.frame import FrameInfo

FOLDER = "feedback"

log = logging.getLogger(__name__)


def write(work: AssignedWork, tensors: Mapping[str, Tensor], path: Path, folder: Path) -> FrameInfo:
    """Write an update with the codec that the server chose. Imports torch."""
    from fedcore.wire.feedback import Residuals
    from fedcore.wire.update import Encoding, write_update

    offer, meta = work.wire, work.update_meta
    encoding = Encoding.of_update(offer.chain, work.spec.seed, work.round, work.slot)
    previous = offer.accepted if offer.accepted and offer.accepted.chain.lossy else None
    enabled = work.spec.wire.error_feedback and not work.spec.adapter.averaging.refactors
    if not enabled or (previous is None and not offer.chain.lossy):
        return write_update(path, tensors, meta, encoding)
    residuals = Residuals(folder / work.job)
    if previous and residuals.of(previous) is None:
        log.warning("the residual of round %d's update is missing on this disk", previous.round)
    return residuals.write(path, tensors, meta, encoding, work.round, previous)


def remove_finished_jobs(folder: Path, offer: WireOffer) -> None:
    """Delete the residuals of jobs that are over."""
    if offer.jobs is None or not folder.is_dir():
        return
    for job_folder in folder.iterdir():
        if job_folder.name not in offer.jobs:
            shutil.rmtree(job_folder, ignore_errors=True)
            log.info("removed %s of job %s, which is over", folder.name, job_folder.name[:8])


def remove_after_last_round(folder: Path, work: AssignedWork) -> None:
    """Delete the job's residuals after its last evaluation: no training follows."""
    if work.task == "evaluate" and work.round >= work.spec.rounds:
        shutil.rmtree(folder / work.job, ignore_errors=True)
