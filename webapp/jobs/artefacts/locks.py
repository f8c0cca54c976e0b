"""File locks. An open file holds them, so they end with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def try_lock(handle: int) -> bool:
    """Lock an open file until it is closed; False where another process holds the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(handle: int) -> Iterator[None]:
    """Mark a newly created open file as being written."""
    try_lock(handle)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def lock_file(path: Path) -> int | None:
    """Descriptor of the lock file ``path``, created if missing; None where another holds it."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        if not try_lock(handle):
            os.close(handle)
            return None
        try:
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # the previous holder removed the file between our open and lock


def drop_lock_file(path: Path, handle: int) -> None:
    """Remove a lock file that this process holds, and release the lock."""
    path.unlink(missing_ok=True)
    os.close(handle)
