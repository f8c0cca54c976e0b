"""Partial uploads, stored under their assignment until they are complete."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from uuid import UUID

from webapp.jobs.artefacts.locks import drop_lock_file, lock_file
from webapp.jobs.artefacts.store import CHUNK, ArtefactRefused, incoming_dir, refuse_full_disk
from webapp.jobs.artefacts.writeback import EVERY_BYTES, start_writing

MAX_BUFFERS = 256  # per writev; Linux allows 1024


def part_path(assignment: UUID, sha256: str) -> Path:
    return incoming_dir() / f"{assignment.hex}-{sha256}.part"


def lock_path(assignment: UUID) -> Path:
    return incoming_dir() / f"{assignment.hex}.lock"


def received_bytes(assignment: UUID, sha256: str) -> int:
    """Bytes of an upload that have arrived; 0 where it has not begun."""
    try:
        return part_path(assignment, sha256).stat().st_size
    except FileNotFoundError:
        return 0


class PartialUpload:
    """The first ``size`` bytes of an upload, locked and open for more.

    An assignment has one upload; starting another with another hash drops the previous one. A
    killed process's bytes are continued by the next request. Raises ArtefactRefused: 423 where
    another request holds the lock, 507 on a full disk.
    """

    def __init__(self, assignment: UUID, sha256: str) -> None:
        self.path = part_path(assignment, sha256)
        self._lock_path = lock_path(assignment)
        with refuse_full_disk():
            lock = lock_file(self._lock_path)
        if lock is None:
            raise ArtefactRefused("another request is sending this update; retry in a moment", 423)
        self._lock = lock
        try:
            for other in self.path.parent.glob(f"{assignment.hex}-*.part"):
                if other != self.path:
                    other.unlink(missing_ok=True)
            with refuse_full_disk():
                self._file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o666)
        except BaseException:
            drop_lock_file(self._lock_path, lock)
            raise
        self.size = self._started = os.lseek(self._file, 0, os.SEEK_END)
        self._digest: hashlib._Hash | None = None

    def close(self) -> None:
        """Release the lock; an empty or discarded upload leaves no file."""
        os.close(self._file)
        if self.size and self.path.exists():
            os.close(self._lock)
        else:
            self.discard()
            drop_lock_file(self._lock_path, self._lock)

    def restart(self) -> None:
        """Drop all bytes."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.size = self._started = 0
        self._digest = None

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)

    def hash_along(self) -> None:
        """Hash the bytes so far, and from now on each new chunk as it is written."""
        digest, buffer, done = hashlib.sha256(), bytearray(min(CHUNK, self.size)), 0
        while done < self.size:
            got = os.preadv(self._file, [buffer], done)
            if not got:
                raise OSError(f"{self.path} lost bytes while it was read")
            digest.update(memoryview(buffer)[: min(got, self.size - done)])
            done += got
        self._digest = digest

    def append(self, *chunks: bytes | memoryview) -> None:
        """Append bytes. On a full disk the upload is discarded; raises ArtefactRefused (507)."""
        if self._digest is not None:
            for chunk in chunks:
                self._digest.update(chunk)
        buffers = [memoryview(chunk) for chunk in chunks if chunk]
        try:
            with refuse_full_disk():
                while buffers:
                    written = os.writev(self._file, buffers[:MAX_BUFFERS])
                    self.size += written
                    while buffers and written >= len(buffers[0]):
                        written -= len(buffers.pop(0))
                    if written:
                        buffers[0] = buffers[0][written:]
        except ArtefactRefused:
            self.discard()
            raise
        if self.size - self._started >= EVERY_BYTES:
            start_writing(self._file, self._started, self.size - self._started)
            self._started = self.size

    @property
    def sha256(self) -> str:
        if self._digest is None:
            self.hash_along()
        assert self._digest is not None
        return self._digest.hexdigest()
