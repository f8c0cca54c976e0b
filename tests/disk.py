"""Disks that are full: a real one where the tests may mount it, a storage that says so anywhere."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import File

from webapp.jobs.artefacts.atomic_storage import AtomicFileSystemStorage

DISK_BYTES = 4 * 2**20


class FullStorage(AtomicFileSystemStorage):
    """A storage without space."""

    def adopt(self, path: Path, name: str) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _save(self, name: str, content: File) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class SmallDisk:
    """A folder on a file system of its own, a few megabytes large."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("wb", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def free(self) -> None:
        self._filler.unlink()

    def leftovers(self) -> list[Path]:
        """Files that should not be there any more."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path for path in files if path.name.endswith((".part", ".fetched"))]


@pytest.fixture
def small_disk(tmp_path: Path, settings: Any) -> Iterator[SmallDisk]:
    """VAR_DIR and the artefacts live on a small disk; skipped where mounting is not permitted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "edgewise-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    artefacts = {
        **settings.STORAGES["artefacts"],
        "OPTIONS": {"location": str(folder / "artefacts"), "base_url": None},
    }
    settings.VAR_DIR = folder
    settings.MIN_FREE_BYTES = 1  # the disk is smaller than a real site's reserve
    settings.STORAGES = {**settings.STORAGES, "default": artefacts, "artefacts": artefacts}
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
