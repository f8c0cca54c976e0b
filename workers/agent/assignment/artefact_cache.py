"""Downloaded weights and updates on this device's disk, named by SHA-256.

A download that was cut resumes where it broke off.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path

from fedcore.errors import EdgewiseError
from workers.agent.http.server_api import ServerApi
from workers.agent.http.socket import no_check
from workers.agent.http.verdicts import intercepted

CHUNK_BYTES = 1 << 20
MAX_FILES = 2

log = logging.getLogger(__name__)


class BrokenDownload(EdgewiseError):
    """The downloaded bytes do not match their SHA-256."""

    retryable = True


class ArtefactCache:
    """Files whose name is their SHA-256.

    A file gets its name atomically, once its hash was checked. Nothing is synced to disk: damage
    by a power cut only costs another download. Files of an earlier start of the agent are hashed
    once before they are used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, sha256: str, size: int, check: Callable[[], None] = no_check) -> Path | None:
        """The complete file, or None."""
        path = self._folder / sha256
        if not path.is_file() or path.stat().st_size != size:
            return None
        if sha256 not in self._checked:
            if hash_of(path, check).hexdigest() != sha256:
                log.warning("cached weights %s are damaged; downloading them again", sha256[:12])
                path.unlink()
                return None
            self._checked.add(sha256)
        return path

    def fetch(self, server: ServerApi, sha256: str, size: int, check: Callable[[], None]) -> Path:
        """Download what is missing of an artefact and verify it.

        ``check`` is called for every chunk and may raise. A broken connection raises
        ServerUnavailable and leaves what has arrived for the next call. Raises BrokenDownload
        where the bytes do not match.
        """
        part = self._folder / f"{sha256}.part"
        present = part.stat().st_size if part.exists() else 0
        if present > size:
            part.unlink()
            present = 0
        digest = hash_of(part, check) if present else hashlib.sha256()
        if present < size or size == 0:
            digest = _append_missing(server, sha256, size, part, digest, check)
        try:
            _check_hash(sha256, digest)
        except BrokenDownload:
            part.unlink()
            raise
        server.traffic.completed(sha256)
        return self.adopt(part, sha256)

    def store(self, sha256: str, data: bytes) -> Path:
        """Store an artefact that came within a message. Raises BrokenDownload."""
        _check_hash(sha256, hashlib.sha256(data))
        part = self._folder / f"{sha256}.part"
        part.write_bytes(data)
        return self.adopt(part, sha256)

    def adopt(self, path: Path, sha256: str) -> Path:
        """Take over a file of this folder whose hash was checked."""
        self._checked.add(sha256)
        return path.replace(self._folder / sha256)

    def keep_only(self, names: Collection[str]) -> None:
        """Delete all other files, partial ones too."""
        for path in self._folder.iterdir():
            if path.name.split(".")[0] not in names:
                path.unlink(missing_ok=True)

    def tidy(self, current: str) -> None:
        """Keep ``current`` and the newest others, MAX_FILES in all."""
        others = [path for path in self._folder.iterdir() if path.name.split(".")[0] != current]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[MAX_FILES - 1 :]:
            path.unlink(missing_ok=True)


def _check_hash(sha256: str, digest: hashlib._Hash) -> None:
    actual = digest.hexdigest()
    if actual != sha256:
        text = f"the weights {sha256[:12]} arrived with the hash {actual[:12]}"
        raise BrokenDownload(f"{text}; downloading them again")


def _append_missing(
    server: ServerApi,
    sha256: str,
    size: int,
    part: Path,
    digest: hashlib._Hash,
    check: Callable[[], None],
) -> hashlib._Hash:
    """Append the missing bytes; ``digest`` covers those present, the result all of them."""
    with part.open("ab", buffering=0) as file:
        start = file.tell()
        with server.download(sha256, start, check) as (status, body):
            if status == 416:
                return digest
            if body.length not in (None, size - start if status == 206 else size):
                raise intercepted(status, "downloads")
            if status == 206:
                log.info("resuming the download at byte %d", start)
            elif start:  # the server ignored the range and sends everything
                file.truncate(0)
                digest = hashlib.sha256()
            buffer = memoryview(bytearray(CHUNK_BYTES))
            while count := body.readinto(buffer):
                chunk = buffer[:count]
                server.traffic.moved(sha256, file.tell(), count)
                digest.update(chunk)
                while chunk:
                    chunk = chunk[file.write(chunk) :]
    return digest


def hash_of(path: Path, check: Callable[[], None]) -> hashlib._Hash:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
    handle = os.open(path, os.O_RDONLY)
    try:
        while count := os.readv(handle, [buffer]):
            check()
            digest.update(buffer[:count])
    finally:
        os.close(handle)
    return digest
