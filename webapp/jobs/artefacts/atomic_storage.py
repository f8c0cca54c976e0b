"""Artefact storage in a local folder; a killed process leaves no partial files under a name."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path
from typing import Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

from webapp.jobs.artefacts.locks import locked

# Other disk, or no hard links: the bytes are copied instead.
NO_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)


class AtomicFileSystemStorage(FileSystemStorage):
    """Writes to a temporary file, syncs, renames: a name holds all of its bytes or nothing.

    Names are hashes of the content, so saving one again is harmless and never renames.
    """

    def adopt(self, path: Path, name: str) -> bool:
        """Hard-link a finished file into the storage; False where the disk cannot.

        The file must not be written to afterwards: both names share the bytes.
        """
        target = self._target(name)
        _sync(path)
        try:
            os.link(path, target)
        except FileExistsError:
            return True
        except OSError as error:
            if error.errno in NO_LINK:
                return False
            raise
        _sync(target.parent)
        return True

    def _save(self, name: str, content: File[Any]) -> str:
        target = self._target(name)
        temporary = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            # Locked while it is written, so that ``remove_leftovers`` leaves it alone.
            with temporary.open("wb") as out, locked(out.fileno()):
                for chunk in content.chunks(2**20):
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return name

    def _target(self, name: str) -> Path:
        """Path of ``name``; creates its folder, synced to disk."""
        target = Path(self.path(name))
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            _sync(target.parent.parent)
        return target

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name


def _sync(path: Path) -> None:
    """fsync a file, or the entries of a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
