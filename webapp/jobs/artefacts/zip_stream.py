"""Zip archives written while they are sent, with one chunk in memory."""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse

from webapp.jobs.artefacts.store import CHUNK, storage
from webapp.jobs.models import Artefact


@dataclass(frozen=True)
class ZipMember:
    """One file of a zip. ``chunks`` opens its bytes, of which there are ``size_bytes``."""

    name: str
    size_bytes: int
    chunks: Callable[[], Iterable[bytes]]


def text_member(name: str, text: str) -> ZipMember:
    content = text.encode()
    return ZipMember(name, len(content), lambda: [content])


def artefact_chunks(artefact: Artefact) -> Iterator[bytes]:
    with storage().open(Artefact.path_of(artefact.sha256), "rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


class _Pipe:
    """A buffer that zipfile writes to and the response drains."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        self._buffer += data
        return len(data)

    def flush(self) -> None:
        """Required by zipfile; the reader drains the buffer."""

    def drain(self) -> bytes:
        content, self._buffer = bytes(self._buffer), bytearray()
        return content


def zip_parts(members: Iterable[ZipMember]) -> Iterator[bytes]:
    """An uncompressed zip in pieces; weights do not compress."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for member in members:
            info = zipfile.ZipInfo(member.name, (2000, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            large = member.size_bytes >= 2**31
            with archive.open(info, "w", force_zip64=large) as out:
                for chunk in member.chunks():
                    out.write(chunk)
                    yield pipe.drain()
    yield pipe.drain()


def send_zip(request: HttpRequest, members: Iterable[ZipMember], name: str) -> HttpResponseBase:
    parts = zip_parts(members)
    # Over ASGI, Django would collect a synchronous iterator in memory.
    content = _asynchronous(parts) if isinstance(request, ASGIRequest) else parts
    response = StreamingHttpResponse(content, content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "private, no-transform"
    return response


async def _asynchronous(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    def next_part() -> bytes | None:
        return next(parts, None)

    step = sync_to_async(next_part, thread_sensitive=False)
    while (part := await step()) is not None:
        yield part
