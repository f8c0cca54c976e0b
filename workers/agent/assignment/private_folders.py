"""Files of a job that never leave this device: one folder per job under ``private``.

When a job is over, only the device's own models (PFTT, agglomerative) stay: the newest file of
each kind, until somebody deletes the folder.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from fedcore.formats.wire_offer import WireOffer
from workers.agent.assignment.assigned_work import AssignedWork

FOLDER = "private"
OWN_MODEL_PREFIX = "own-"

log = logging.getLogger(__name__)


def folder_of(folder: Path, work: AssignedWork) -> Path:
    """The folder of a job's private files; whoever writes the first file creates it."""
    return folder / work.job


def remove_finished_jobs(folder: Path, offer: WireOffer) -> None:
    """Delete the files of jobs that are over, except the device's own models."""
    if offer.jobs is None or not folder.is_dir():
        return
    for job_folder in folder.iterdir():
        if job_folder.name in offer.jobs or not job_folder.is_dir():
            continue
        files = sorted(job_folder.iterdir())
        models = [path for path in files if path.name.startswith(OWN_MODEL_PREFIX)]
        newest = {path.suffix: path for path in models}
        for path in files:
            if path not in newest.values():
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                log.info("removed %s of job %s, which is over", path.name, job_folder.name[:8])
        if not models:
            job_folder.rmdir()
