"""Retention of freed memory: glibc's malloc options for training.

By default glibc returns large blocks to the system at once and gets them again, zeroed page by
page, at the next layer: measured, a third of a training step.
"""

from __future__ import annotations

import ctypes
import sys

MMAP_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -4, -3, -1  # malloc.h
NEVER = 2**31 - 1


def _glibc() -> ctypes.CDLL | None:
    """The C library where it is glibc, else None (musl, macOS)."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def keep_pages() -> bool:
    """Keep freed memory for the rest of this process; False where the C library cannot."""
    library = _glibc()
    if library is None:
        return False
    return bool(library.mallopt(MMAP_MAX, 0)) and bool(library.mallopt(TRIM_THRESHOLD, NEVER))


def release_pages() -> None:
    """Return freed memory to the system now: a device has other work between two rounds."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def default_pages() -> None:
    """Restore what glibc does by itself after large blocks were freed: it keeps 64 MB of them."""
    library = _glibc()
    if library is not None:
        library.mallopt(MMAP_MAX, 65_536)
        library.mallopt(MMAP_THRESHOLD, 1 << 25)
        library.mallopt(TRIM_THRESHOLD, 1 << 26)
