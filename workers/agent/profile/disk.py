"""How fast the disk under a folder is, past the page cache."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 20
BLOCKS = 64
SYNC_EACH = 8  # blocks, where the page cache cannot be gone around
LONGEST_S = 0.8  # each way
NAME = ".probe"


@dataclass(frozen=True)
class Rates:
    """Bytes per second, in pieces of 1 MiB one after another. None: it would be the cache's."""

    write_bps: float
    read_bps: float | None


def rates(folder: Path) -> Rates:
    """Raises OSError where there is no space or no permission.

    The file has no name while it is there, so that nothing is left by whoever is killed.
    """
    if shutil.disk_usage(folder).free < 4 * BLOCKS * BLOCK:
        raise OSError(errno.ENOSPC, f"less than {4 * BLOCKS} MiB are free", str(folder))
    handle, direct = _open(folder / NAME)
    try:
        with mmap.mmap(-1, BLOCK) as block:  # begins on a page, as a direct write must
            block.write(os.urandom(BLOCK))  # nothing that a file system could squeeze
            count, write_bps = _write(handle, block, direct)
            fresh = direct or _forgotten(handle)
            return Rates(write_bps, _read(handle, block, count) if fresh else None)
    finally:
        os.close(handle)


def _open(path: Path) -> tuple[int, bool]:
    """A file around the page cache where that is possible, and whether it is."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    direct = getattr(os, "O_DIRECT", 0)
    try:
        handle = os.open(path, flags | direct, 0o600)
    except OSError as error:
        if not direct or error.errno != errno.EINVAL:
            raise
        direct, handle = 0, os.open(path, flags, 0o600)
    path.unlink()
    return handle, bool(direct)


def _write(handle: int, block: mmap.mmap, direct: bool) -> tuple[int, float]:
    """How many blocks, and bytes per second until they were on the disk."""
    began, count = time.perf_counter(), 0
    while count < BLOCKS and time.perf_counter() - began < LONGEST_S:
        if os.write(handle, block) != BLOCK:
            raise OSError(errno.ENOSPC, "the disk took only a part of a block")
        count += 1
        if not direct and count % SYNC_EACH == 0:
            os.fsync(handle)
    os.fsync(handle)
    return count, count * BLOCK / (time.perf_counter() - began)


def _forgotten(handle: int) -> bool:
    """Drop the file from the page cache; False where the system cannot."""
    with contextlib.suppress(AttributeError):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return True
    return False


def _read(handle: int, block: mmap.mmap, count: int) -> float:
    os.lseek(handle, 0, os.SEEK_SET)
    began, got = time.perf_counter(), 0
    while got < count * BLOCK and time.perf_counter() - began < LONGEST_S:
        piece = os.readv(handle, [block])
        if not piece:
            raise OSError(errno.EIO, "the disk gave less than it took")
        got += piece
    return got / (time.perf_counter() - began)
