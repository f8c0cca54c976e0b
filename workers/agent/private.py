"""What a device keeps of a job and never sends: a folder for each job under ``private``."""

from __future__ import annotations

from pathlib import Path

from workers.agent.work import Work

FOLDER = "private"


def folder_of(folder: Path, work: Work) -> Path:
    """Where a job's private files are; whoever writes one makes it."""
    return folder / work.job
