"""File locks. An open file holds them, so they end with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def try_lock(handle: int) -> bool:
    """Whether nobody else holds the open file; if so, we do until it is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(handle: int) -> Iterator[None]:
    """Show that somebody is at work on an open file that has just been made."""
    try_lock(handle)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def lock_file(path: Path) -> int | None:
    """The open lock file ``path``, made where it is missing; None where another holds it."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        if not try_lock(handle):
            os.close(handle)
            return None
        if _is_at(handle, path):
            return handle
        os.close(handle)  # its former holder removed it between our opening and locking


def drop_lock_file(path: Path, handle: int) -> None:
    """Remove a lock file that we hold, and let go."""
    path.unlink(missing_ok=True)
    os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
