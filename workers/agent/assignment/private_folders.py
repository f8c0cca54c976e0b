"""What a device keeps of a job and never sends: a folder for each job under ``private``.

When a job is over, all goes but what its person may want: a model of the device's own (PFTT,
agglomerative). Of its files the newest of each kind stays until somebody deletes the folder.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from fedcore.formats.wire_offer import WireOffer
from workers.agent.assignment.assignment import AssignedWork

FOLDER = "private"
OF_ITS_OWN = "own-"  # what names of files begin with that stay

log = logging.getLogger(__name__)


def folder_of(folder: Path, work: AssignedWork) -> Path:
    """Where a job's private files are; whoever writes one makes it."""
    return folder / work.job


def tidy(folder: Path, offer: WireOffer) -> None:
    """Remove what is kept of jobs that are over, but for the device's own models."""
    if offer.jobs is None or not folder.is_dir():
        return
    for kept in folder.iterdir():
        if kept.name not in offer.jobs and kept.is_dir():
            _tidy_job(kept)


def _tidy_job(folder: Path) -> None:
    own = sorted(path for path in folder.iterdir() if path.name.startswith(OF_ITS_OWN))
    newest = {path.suffix: path for path in own}
    for path in folder.iterdir():
        if path not in newest.values():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            log.info("%s of job %s is removed: the job is over", path.name, folder.name[:8])
    if not own:
        folder.rmdir()
