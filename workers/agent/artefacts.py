"""Weights on this device's disk, by SHA-256; downloads go on where they broke off."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from fedcore.errors import EdgewiseError
from workers.agent.transport import Server

CHUNK = 1 << 18
KEPT = 2

log = logging.getLogger(__name__)


class BrokenDownload(EdgewiseError):
    """The bytes are not what their name says."""

    retryable = True


class ArtefactCache:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def held(self, sha256: str, size: int) -> Path | None:
        """The file if it is here whole; a file gets its name only after its hash was checked."""
        path = self._folder / sha256
        return path if path.is_file() and path.stat().st_size == size else None

    def fetch(self, server: Server, sha256: str, size: int, check: Callable[[], None]) -> Path:
        """Download what is missing of an artefact and check it.

        ``check`` is called at every piece and may raise. A broken connection raises
        ServerUnavailable and leaves what came so far for the next call.
        """
        part = self._folder / f"{sha256}.part"
        have = part.stat().st_size if part.exists() else 0
        if have > size:
            part.unlink()
            have = 0
        if have < size or size == 0:
            self._receive(server, sha256, part, check)
        found = hash_of(part, check)
        if found != sha256:
            part.unlink()
            raise BrokenDownload(f"the weights {sha256[:12]} came as {found[:12]}; asking again")
        path = self._folder / sha256
        part.replace(path)
        return path

    def _receive(self, server: Server, sha256: str, part: Path, check: Callable[[], None]) -> None:
        start = part.stat().st_size if part.exists() else 0
        with server.download(sha256, start) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            if resumed:
                log.info("the download goes on at byte %d", start)
            with part.open("ab" if resumed else "wb") as file:
                for chunk in response.iter_raw():
                    check()
                    file.write(chunk)

    def tidy(self, keep: str) -> None:
        """Drop all but ``keep`` and the newest others, KEPT in all."""
        others = [path for path in self._folder.iterdir() if path.name.split(".")[0] != keep]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[KEPT - 1 :]:
            path.unlink(missing_ok=True)


def hash_of(path: Path, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    for chunk in pieces(path, check):
        digest.update(chunk)
    return digest.hexdigest()


def pieces(path: Path, check: Callable[[], None]) -> Iterator[bytes]:
    """A file's bytes, piece by piece; ``check`` may raise between two of them."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            check()
            yield chunk
