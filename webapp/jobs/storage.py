"""Artefact storage on a local folder that survives being killed half-way through a write."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage


class AtomicFileSystemStorage(FileSystemStorage):
    """Writes beside the target, syncs, renames: a name either holds all of its bytes or nothing.

    Names are hashes of the content, so saving one again is harmless and never renames.
    """

    def _save(self, name: str, content: File[Any]) -> str:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with temporary.open("wb") as out:
                for chunk in content.chunks(2**20):
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
            self._sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return name

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    @staticmethod
    def _sync(folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
