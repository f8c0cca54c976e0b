"""Artefact storage on a local folder that survives being killed half-way through a write."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path
from typing import Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

from webapp.jobs.artefacts.locks import locked

# Another disk, or one that knows no second name for a file: then the bytes are copied.
NO_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)


class AtomicFileSystemStorage(FileSystemStorage):
    """Writes beside the target, syncs, renames: a name either holds all of its bytes or nothing.

    Names are hashes of the content, so saving one again is harmless and never renames.
    """

    def adopt(self, path: Path, name: str) -> bool:
        """Give a finished file a second name in here, without copying it; False where that fails.

        The file must not be written to afterwards: both names are the same bytes.
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
            # Held while it is written, so that whoever tidies up sees that its writer lives.
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
        """Where ``name`` lies; its folder is there afterwards, and stays after a power cut."""
        target = Path(self.path(name))
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            _sync(target.parent.parent)
        return target

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name


def _sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
