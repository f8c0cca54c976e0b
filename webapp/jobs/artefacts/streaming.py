"""Artefacts on their way out: ranges, and who carries the bytes.

A view decides and says what is to be sent (``stream``); the bytes then go past Django. The first of
these that is there carries them: the proxy (X-Accel-Redirect), the bucket (a redirect to a signed
address), the ASGI server (pathsend, zerocopysend); else ``SentFiles`` reads and sends piece by
piece.
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

OFFERED = "edgewise.files"  # in an ASGI scope: SentFiles is there
DIRECT = "edgewise.direct"  # in an ASGI scope: it sends by the socket, and sees who hangs up
WANTED = "edgewise.file"  # its answer: the Slice to send


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


class Redirecting(Protocol):
    """A storage that signs addresses, as django-storages' S3 does."""

    def url(self, name: str, parameters: dict[str, str] | None = None) -> str:
        """An address under which anybody may fetch the file for a while."""


def stream(request: HttpRequest, artefact: Artefact, filename: str = "") -> HttpResponseBase:
    """The bytes, or the range asked for (206; 416 beyond the end), without holding them.

    ``sent_bytes`` of the answer says how many bytes go out, whoever sends them.
    """
    etag = f'"{artefact.sha256}"'
    if request.headers.get("If-None-Match") == etag:
        return HttpResponse(status=304, headers={"ETag": etag})
    size = artefact.size_bytes
    same = request.headers.get("If-Range", etag) == etag
    asked = _range(request.headers.get("Range", ""), size) if same else ""
    if asked == "beyond":
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    part = Slice(artefact.sha256, size, *(asked if isinstance(asked, tuple) else (0, size)))
    response = _elsewhere(part, filename) or _here(request, part, partial=isinstance(asked, tuple))
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-transform"
    if filename:
        response["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.sent_bytes = part.stop - part.start  # type: ignore[attr-defined]
    return response


def _elsewhere(part: Slice, filename: str) -> HttpResponse | None:
    """An answer that has the proxy or the bucket send the bytes; they see to the range too."""
    place = storage()
    if isinstance(place, FileSystemStorage):
        prefix = settings.X_ACCEL_PREFIX
        if not prefix:
            return None
        answer = HttpResponse(content_type="application/octet-stream")
        answer["X-Accel-Redirect"] = f"{prefix}{part.name}"
        return answer
    if not settings.S3_REDIRECT:
        return None
    named = {"ResponseContentDisposition": f'attachment; filename="{filename}"'} if filename else {}
    signing: Redirecting = place  # type: ignore[assignment]
    return HttpResponse(status=307, headers={"Location": signing.url(part.name, parameters=named)})


def _here(request: HttpRequest, part: Slice, partial: bool) -> HttpResponseBase:
    status, kind = 206 if partial else 200, "application/octet-stream"
    scope: dict[str, Any] = getattr(request, "scope", {})
    response: HttpResponseBase
    if OFFERED in scope:
        scope[WANTED] = part
        response = HttpResponse(status=status, content_type=kind)
    else:  # not over ASGI
        response = StreamingHttpResponse(chunks_of(part), status=status, content_type=kind)
    response["Content-Length"] = str(part.stop - part.start)
    if partial:
        response["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{part.size}"
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


def chunks_of(part: Slice) -> Iterator[bytes]:
    """The bytes, a piece at a time, from any storage."""
    left = part.stop - part.start
    with storage().open(part.name, "rb") as source:
        source.seek(part.start)
        while left and (piece := source.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece
