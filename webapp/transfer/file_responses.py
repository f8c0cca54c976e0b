"""An ASGI application around Django's that sends the files its views decided on."""

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
    """Offers itself to views; when one wants a Slice sent, sends that for the answer's body."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, FILES_KEY: True, DIRECT_KEY: uvicorn_cycle(send) is not None}

        async def sent(message: Message) -> None:
            wanted: Slice | None = scope.get(SLICE_KEY)
            begins = message["type"] == "http.response.start" or scope["method"] == "HEAD"
            if wanted is None or begins:
                await send(message)
            else:
                await _send(wanted, scope, send)

        # Django cancels this when the other side has gone; a socket says so itself.
        await self._app(scope, receive, sent)


async def _send(part: Slice, scope: Scope, send: Send) -> None:
    place = storage()
    if not isinstance(place, FileSystemStorage):
        await _send_pieces(chunks_of(part), send)
        return
    path = Path(place.path(part.name))
    extensions: dict[str, Any] = scope.get("extensions") or {}
    if part.is_whole and "http.response.pathsend" in extensions:
        await send({"type": "http.response.pathsend", "path": str(path)})
    else:
        await _send_from(path, part, "http.response.zerocopysend" in extensions, send)


async def _send_from(path: Path, part: Slice, by_descriptor: bool, send: Send) -> None:
    handle = await run_in_thread(os.open, path, os.O_RDONLY)
    try:
        exchange = uvicorn_cycle(send)
        if by_descriptor:
            place = {"file": handle, "offset": part.start, "count": part.stop - part.start}
            await send({"type": "http.response.zerocopysend", **place})
        elif exchange is not None:
            try:
                await send_file(exchange, handle, part.start, part.stop)
            except ConnectionError as error:
                log.info("a download of %s ended early: %s", part.sha256[:12], error)
                return
        else:
            await _send_pieces(_read(handle, part), send)
            return
        await send(END)
    finally:
        os.close(handle)


async def _send_pieces(source: Iterator[bytes], send: Send) -> None:
    """Read one piece ahead while the former is on its way."""
    ahead = asyncio.ensure_future(run_in_thread(next, source, b""))
    try:
        while piece := await ahead:
            ahead = asyncio.ensure_future(run_in_thread(next, source, b""))
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send(END)
    finally:
        await asyncio.wait([ahead])  # it reads from what the caller is about to close


def _read(handle: int, part: Slice) -> Iterator[bytes]:
    at = part.start
    while at < part.stop and (piece := os.pread(handle, min(CHUNK, part.stop - at), at)):
        at += len(piece)
        yield piece
