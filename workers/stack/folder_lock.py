"""One site per folder: a second start says where the first one runs."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from workers.stack.processes import StartError

FILE = "run.lock"


class FolderLock:
    """Held until ``release`` or the end of this process, however that ends."""

    def __init__(self, folder: Path) -> None:
        """Raises StartError, with address and process, where a site already runs in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / FILE
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(self._handle, 1000, 0).decode("utf-8", "replace")
            os.close(self._handle)
            raise StartError(_words(folder, text)) from None
        self.note_url("")

    def note_url(self, url: str) -> None:
        """What a second start is told; '' while the site is starting."""
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)

    def release(self) -> None:
        os.ftruncate(self._handle, 0)
        os.close(self._handle)


def _words(folder: Path, text: str) -> str:
    try:
        values = json.loads(text)
        pid, url = int(values["pid"]), str(values["url"])
    except (ValueError, KeyError, TypeError):
        return f"a site is starting or stopping in {folder}; try again in a few seconds"
    state = f"already runs at {url}" if url else "is starting"
    return (
        f"a site of this folder ({folder}) {state} (process {pid}); open it, stop it with "
        f"`kill {pid}`, or choose another --folder"
    )
