"""Artefacts in and out of the storage: streamed, checked by SHA-256, stored once."""

from __future__ import annotations

import errno
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from fedcore.errors import EdgewiseError
from webapp.jobs.models import Artefact, ArtefactKind

CHUNK = 2**20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXT = "the server's disk is full; free space there and try again"


class ArtefactRefused(EdgewiseError):
    """Bytes that cannot be taken. ``status`` is the HTTP status for it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = status == 507


def storage() -> Storage:
    return storages["artefacts"]


def incoming_dir() -> Path:
    """Where bytes wait until their hash is known; on the same disk as a local storage."""
    folder = settings.VAR_DIR / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(folder)


@contextmanager
def full_disk_refused() -> Iterator[None]:
    """Turn what a full disk raises into ArtefactRefused (507)."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise ArtefactRefused(FULL_TEXT, 507) from error


@contextmanager
def received(chunks: Iterable[bytes], sha256: str, max_bytes: int) -> Iterator[Path]:
    """Write a stream to a temporary file and check it. The file is gone afterwards.

    Raises ArtefactRefused: 413 for more than ``max_bytes``, 422 for another hash, 507 where the
    disk is full.
    """
    digest, size = hashlib.sha256(), 0
    with ExitStack() as stack:
        with full_disk_refused():
            out = stack.enter_context(
                tempfile.NamedTemporaryFile(dir=incoming_dir(), suffix=".part", buffering=0)
            )
        for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise ArtefactRefused(f"more than the {max_bytes} bytes expected here", 413)
            digest.update(chunk)
            with full_disk_refused():
                _write(out, chunk)
        if digest.hexdigest() != sha256:
            text = f"{size} bytes arrived whose SHA-256 is {digest.hexdigest()}; send them again"
            raise ArtefactRefused(text, 422)
        yield Path(out.name)


def _write(out: IO[bytes], chunk: bytes) -> None:
    """All of a chunk, unbuffered: closing must not meet the full disk once more."""
    left = memoryview(chunk)
    while left:
        left = left[out.write(left) :]


def store(path: Path, sha256: str, kind: ArtefactKind, origin: str) -> Artefact:
    """Put a checked file into the storage, once. Raises ArtefactRefused (507) on a full disk."""
    name = Artefact.path_of(sha256)
    with full_disk_refused():
        if not storage().exists(name):
            with path.open("rb") as source:
                storage().save(name, File(source))
    artefact, _ = Artefact.objects.get_or_create(
        sha256=sha256,
        defaults={"size_bytes": path.stat().st_size, "kind": kind, "origin": origin},
    )
    return artefact


def open_artefact(artefact: Artefact) -> IO[bytes]:
    return cast("IO[bytes]", storage().open(Artefact.path_of(artefact.sha256), "rb"))


@contextmanager
def local_file(artefact: Artefact) -> Iterator[Path]:
    """The artefact as a file on this machine, fetched first where the storage is elsewhere."""
    place = storage()
    if isinstance(place, FileSystemStorage):
        yield Path(place.path(Artefact.path_of(artefact.sha256)))
        return
    with tempfile.NamedTemporaryFile(dir=incoming_dir(), suffix=".fetched") as out:
        with place.open(Artefact.path_of(artefact.sha256), "rb") as source:
            for chunk in source.chunks(CHUNK):
                out.write(chunk)
        out.flush()
        yield Path(out.name)


def stream(request: HttpRequest, artefact: Artefact, filename: str = "") -> HttpResponseBase:
    """The bytes, or the range asked for (206; 416 beyond the end), without holding them."""
    etag = f'"{artefact.sha256}"'
    if request.headers.get("If-None-Match") == etag:
        return HttpResponse(status=304, headers={"ETag": etag})
    size = artefact.size_bytes
    asked = _range(request.headers.get("Range", ""), size)
    if asked == "beyond":
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    start, stop = asked if isinstance(asked, tuple) else (0, size)
    # Django gathers a synchronous iterator in memory before it answers over ASGI.
    parts = _slice_async if isinstance(request, ASGIRequest) else _slice
    response = StreamingHttpResponse(
        parts(artefact, start, stop),
        status=206 if isinstance(asked, tuple) else 200,
        content_type="application/octet-stream",
    )
    response["Content-Length"] = str(stop - start)
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-transform"
    if isinstance(asked, tuple):
        response["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    if filename:
        response["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def _range(header: str, size: int) -> tuple[int, int] | str:
    """(start, stop) of a single byte range; 'beyond' if unsatisfiable, '' if there is none."""
    found = re.fullmatch(r"bytes=(\d{0,19})-(\d{0,19})", header.strip())
    if not found or found.group(0) == "bytes=-":
        return ""
    first, last = found.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    return (start, stop) if start < stop else "beyond"


def _slice(artefact: Artefact, start: int, stop: int) -> Iterator[bytes]:
    with storage().open(Artefact.path_of(artefact.sha256), "rb") as source:
        source.seek(start)
        while start < stop:
            chunk = source.read(min(CHUNK, stop - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk


async def _slice_async(artefact: Artefact, start: int, stop: int) -> AsyncIterator[bytes]:
    parts = _slice(artefact, start, stop)
    while chunk := await sync_to_async(lambda: next(parts, b""), thread_sensitive=False)():
        yield chunk
