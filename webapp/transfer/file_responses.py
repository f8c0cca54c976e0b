"""An ASGI application around Django's that sends files for its views."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

from webapp.jobs.artefacts.store import CHUNK, storage
from webapp.jobs.artefacts.streaming import DIRECT_KEY, FILES_KEY, SLICE_KEY, Slice, chunks_of
from webapp.transfer.asgi_tools import App, Message, Receive, Scope, Send, run_in_thread
from webapp.transfer.socket_body import send_file, uvicorn_cycle

log = logging.getLogger(__name__)
END = {"type": "http.response.body", "body": b"", "more_body": False}


class FileResponses:
    """Announces itself in the scope; sends the Slice that a view puts there as the body."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, FILES_KEY: True, DIRECT_KEY: uvicorn_cycle(receive) is not None}

        async def send_message(message: Message) -> None:
            part: Slice | None = scope.get(SLICE_KEY)
            is_start = message["type"] == "http.response.start" or scope["method"] == "HEAD"
            if part is None or is_start:
                await send(message)
            else:
                await _send(part, scope, receive, send)

        # Django cancels this when the client disconnects; a socket reports it itself.
        await self._app(scope, receive, send_message)


async def _send(part: Slice, scope: Scope, receive: Receive, send: Send) -> None:
    place = storage()
    if not isinstance(place, FileSystemStorage):
        await _send_pieces(chunks_of(part), send)
        return
    path = Path(place.path(part.name))
    extensions: dict[str, Any] = scope.get("extensions") or {}
    if part.is_whole and "http.response.pathsend" in extensions:
        await send({"type": "http.response.pathsend", "path": str(path)})
        return
    handle = await run_in_thread(os.open, path, os.O_RDONLY)
    try:
        exchange = uvicorn_cycle(receive)  # ``send`` is wrapped by other applications
        if "http.response.zerocopysend" in extensions:
            window = {"file": handle, "offset": part.start, "count": part.stop - part.start}
            await send({"type": "http.response.zerocopysend", **window})
        elif exchange is not None:
            try:
                await send_file(exchange, handle, part.start, part.stop)
            except ConnectionError as error:
                log.info("a download of %s ended early: %s", part.sha256[:12], error)
                return
        else:
            await _send_pieces(_chunks(handle, part), send)
            return
        await send(END)
    finally:
        os.close(handle)


async def _send_pieces(source: Iterator[bytes], send: Send) -> None:
    """Read one chunk ahead while the previous one is sent."""
    ahead = asyncio.ensure_future(run_in_thread(next, source, b""))
    try:
        while piece := await ahead:
            ahead = asyncio.ensure_future(run_in_thread(next, source, b""))
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send(END)
    finally:
        await asyncio.wait([ahead])  # it reads from a file that the caller is about to close


def _chunks(handle: int, part: Slice) -> Iterator[bytes]:
    at = part.start
    while at < part.stop and (piece := os.pread(handle, min(CHUNK, part.stop - at), at)):
        at += len(piece)
        yield piece
