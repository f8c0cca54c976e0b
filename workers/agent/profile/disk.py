"""Disk throughput under a folder, without the page cache."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 1 << 20
BLOCKS = 64
SYNC_EVERY = 8  # blocks, where the page cache cannot be bypassed
LONGEST_S = 0.8  # each direction
NAME = ".probe"


@dataclass(frozen=True)
class Rates:
    """Bytes per second, sequentially in blocks of 1 MiB. None: the cache would answer."""

    write_bps: float
    read_bps: float | None


def rates(folder: Path) -> Rates:
    """Raises OSError where there is no space or no permission.

    The file is unlinked while it is open, so that a killed process leaves nothing behind.
    """
    if shutil.disk_usage(folder).free < 4 * BLOCKS * BLOCK_BYTES:
        raise OSError(errno.ENOSPC, f"less than {4 * BLOCKS} MiB are free", str(folder))
    handle, direct = _open_unlinked(folder / NAME)
    try:
        with mmap.mmap(-1, BLOCK_BYTES) as block:  # page-aligned, as a direct write must be
            block.write(os.urandom(BLOCK_BYTES))  # incompressible
            count, write_bps = _write_bps(handle, block, direct)
            uncached = direct
            if not direct:
                with contextlib.suppress(AttributeError):  # not on every system
                    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                    uncached = True
            return Rates(write_bps, _read_bps(handle, block, count) if uncached else None)
    finally:
        os.close(handle)


def _open_unlinked(path: Path) -> tuple[int, bool]:
    """An open file without a name, and whether it bypasses the page cache."""
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


def _write_bps(handle: int, block: mmap.mmap, direct: bool) -> tuple[int, float]:
    """Number of blocks written, and bytes per second until they were on disk."""
    began, count = time.perf_counter(), 0
    while count < BLOCKS and time.perf_counter() - began < LONGEST_S:
        if os.write(handle, block) != BLOCK_BYTES:
            raise OSError(errno.ENOSPC, "the disk accepted only a part of a block")
        count += 1
        if not direct and count % SYNC_EVERY == 0:
            os.fsync(handle)
    os.fsync(handle)
    return count, count * BLOCK_BYTES / (time.perf_counter() - began)


def _read_bps(handle: int, block: mmap.mmap, count: int) -> float:
    os.lseek(handle, 0, os.SEEK_SET)
    began, total = time.perf_counter(), 0
    while total < count * BLOCK_BYTES and time.perf_counter() - began < LONGEST_S:
        size = os.readv(handle, [block])
        if not size:
            raise OSError(errno.EIO, "the disk returned less than was written")
        total += size
    return total / (time.perf_counter() - began)
