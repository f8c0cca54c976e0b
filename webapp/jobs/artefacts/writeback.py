"""Early write-back, so that the final fsync of a large file has little left to do.

Measured on ext4 with 308 MB: fsync takes 0.16 s without it, 0.003 to 0.01 s with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

EVERY_BYTES = 16 * 2**20
_WRITE = 2  # SYNC_FILE_RANGE_WRITE: start, do not wait


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """The system call (Linux only)."""
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return call  # type: ignore[no-any-return]


def start_writing(handle: int, offset: int, length: int) -> None:
    """Start writing these bytes to disk. A hint only: an error shows up in fsync."""
    call = _sync_file_range()
    if call is not None:
        call(handle, offset, length, _WRITE)
