"""Weights on this device's disk, by SHA-256; downloads go on where they broke off."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path

from fedcore.errors import EdgewiseError
from workers.agent.http.connection import no_check
from workers.agent.http.server_api import ServerApi

CHUNK = 1 << 20
KEPT = 2

log = logging.getLogger(__name__)


class BrokenDownload(EdgewiseError):
    """The bytes are not what their name says."""

    retryable = True


class ArtefactCache:
    """Files whose name is their SHA-256.

    A file gets its name in one step, once its hash was checked. Nothing is synced to the disk: what
    a power cut damages is only a cache, and a file that another start of the agent left here is
    hashed once before it is used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def held(self, sha256: str, size: int, check: Callable[[], None] = no_check) -> Path | None:
        """The file if it is here whole."""
        path = self._folder / sha256
        if not path.is_file() or path.stat().st_size != size:
            return None
        if sha256 not in self._checked:
            if hash_of(path, check).hexdigest() != sha256:
                log.warning("the kept weights %s are damaged; they are fetched again", sha256[:12])
                path.unlink()
                return None
            self._checked.add(sha256)
        return path

    def fetch(self, server: ServerApi, sha256: str, size: int, check: Callable[[], None]) -> Path:
        """Download what is missing of an artefact and check it.

        ``check`` is called at every piece and may raise. A broken connection raises
        ServerUnavailable and leaves what came so far for the next call.
        """
        part = self._folder / f"{sha256}.part"
        have = part.stat().st_size if part.exists() else 0
        if have > size:
            part.unlink()
            have = 0
        digest = hash_of(part, check) if have else hashlib.sha256()
        if have < size or size == 0:
            digest = _receive(server, sha256, part, digest, check)
        if digest.hexdigest() != sha256:
            part.unlink()
            found = digest.hexdigest()
            raise BrokenDownload(f"the weights {sha256[:12]} came as {found[:12]}; asking again")
        server.traffic.is_whole(sha256)
        path = self._folder / sha256
        part.replace(path)
        self._checked.add(sha256)
        return path

    def adopt(self, path: Path, sha256: str) -> Path:
        """Take in a file of this folder whose hash was checked."""
        self._checked.add(sha256)
        return path.replace(self._folder / sha256)

    def keep_only(self, names: Collection[str]) -> None:
        """Drop all but these, and what came of them so far."""
        for path in self._folder.iterdir():
            if path.name.split(".")[0] not in names:
                path.unlink(missing_ok=True)

    def tidy(self, keep: str) -> None:
        """Drop all but ``keep`` and the newest others, KEPT in all."""
        others = [path for path in self._folder.iterdir() if path.name.split(".")[0] != keep]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[KEPT - 1 :]:
            path.unlink(missing_ok=True)


def _receive(
    server: ServerApi, sha256: str, part: Path, digest: hashlib._Hash, check: Callable[[], None]
) -> hashlib._Hash:
    """Append what is missing, hashed in the same pass; ``digest`` is that of what is here."""
    with part.open("ab", buffering=0) as file:
        start = file.tell()
        with server.download(sha256, start, check) as (status, body):
            if status == 416:
                return digest
            if status == 206:
                log.info("the download goes on at byte %d", start)
            elif start:  # all of it comes once more
                file.truncate(0)
                digest = hashlib.sha256()
            buffer = memoryview(bytearray(CHUNK))
            while got := body.readinto(buffer):
                piece = buffer[:got]
                server.traffic.moved(sha256, file.tell(), got)
                digest.update(piece)
                while piece:
                    piece = piece[file.write(piece) :]
    return digest


def hash_of(path: Path, check: Callable[[], None]) -> hashlib._Hash:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    handle = os.open(path, os.O_RDONLY)
    try:
        while got := os.readv(handle, [buffer]):
            check()
            digest.update(buffer[:got])
    finally:
        os.close(handle)
    return digest
