"""Downloads of artefacts: byte ranges, and which process sends the bytes.

A view only names the bytes (``stream``). They are sent by the first of these that is available: the
proxy (X-Accel-Redirect), the bucket (redirect to a signed URL), the ASGI server (pathsend,
zerocopysend), or ``FileResponses``, which reads and sends chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from webapp.jobs.artefacts.store import CHUNK, storage
from webapp.jobs.models import Artefact

# Keys of an ASGI scope.
FILES_KEY = "edgewise.files"  # ``FileResponses`` will send the file
DIRECT_KEY = "edgewise.direct"  # it sends by the socket and notices a disconnect
SLICE_KEY = "edgewise.file"  # the view sets it to the Slice to send


@dataclass(frozen=True)
class Slice:
    """Bytes [start, stop) of an artefact of ``size`` bytes."""

    sha256: str
    size: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return Artefact.path_of(self.sha256)

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.stop == self.size


class UrlSigner(Protocol):
    """A storage that signs URLs, such as django-storages' S3."""

    def url(self, name: str, parameters: dict[str, str] | None = None) -> str:
        """A URL under which anybody may fetch the file for a while."""


def stream(request: HttpRequest, artefact: Artefact, filename: str = "") -> HttpResponseBase:
    """The bytes or the requested range (206; 416 beyond the end), without buffering them.

    ``sent_bytes`` of the response is the number of bytes, whichever process sends them.
    """
    etag = f'"{artefact.sha256}"'
    if request.headers.get("If-None-Match") == etag:
        return HttpResponse(status=304, headers={"ETag": etag})
    size = artefact.size_bytes
    same = request.headers.get("If-Range", etag) == etag
    byte_range = _parse_range(request.headers.get("Range", ""), size) if same else ""
    if byte_range == "beyond":
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    partial = isinstance(byte_range, tuple)
    part = Slice(artefact.sha256, size, *(byte_range if partial else (0, size)))
    response = _delegated(part, filename) or _sent_here(request, part, partial)
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-transform"
    if filename:
        response["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.sent_bytes = part.stop - part.start  # type: ignore[attr-defined]
    return response


def _delegated(part: Slice, filename: str) -> HttpResponse | None:
    """A response that makes the proxy or the bucket send the bytes; they handle ranges too."""
    place = storage()
    if isinstance(place, FileSystemStorage):
        prefix = settings.X_ACCEL_PREFIX
        if not prefix:
            return None
        response = HttpResponse(content_type="application/octet-stream")
        response["X-Accel-Redirect"] = f"{prefix}{part.name}"
        return response
    if not settings.S3_REDIRECT:
        return None
    signer: UrlSigner = place  # type: ignore[assignment]
    disposition = f'attachment; filename="{filename}"'
    parameters = {"ResponseContentDisposition": disposition} if filename else {}
    location = signer.url(part.name, parameters=parameters)
    return HttpResponse(status=307, headers={"Location": location})


def _sent_here(request: HttpRequest, part: Slice, partial: bool) -> HttpResponseBase:
    status, kind = 206 if partial else 200, "application/octet-stream"
    scope: dict[str, Any] = getattr(request, "scope", {})
    response: HttpResponseBase
    if FILES_KEY in scope:
        scope[SLICE_KEY] = part
        response = HttpResponse(status=status, content_type=kind)
    else:  # not over ASGI
        response = StreamingHttpResponse(chunks_of(part), status=status, content_type=kind)
    response["Content-Length"] = str(part.stop - part.start)
    if partial:
        response["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{part.size}"
    return response


def _parse_range(header: str, size: int) -> tuple[int, int] | str:
    """(start, stop) of a single byte range; "beyond" if unsatisfiable, "" if there is none."""
    match = re.fullmatch(r"bytes=(\d{0,19})-(\d{0,19})", header.strip())
    if not match or match.group(0) == "bytes=-":
        return ""
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    return (start, stop) if start < stop else "beyond"


def chunks_of(part: Slice) -> Iterator[bytes]:
    """The bytes in chunks, from any storage."""
    remaining = part.stop - part.start
    with storage().open(part.name, "rb") as source:
        source.seek(part.start)
        while remaining and (chunk := source.read(min(CHUNK, remaining))):
            remaining -= len(chunk)
            yield chunk
