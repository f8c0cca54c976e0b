"""Bodies are bounded before they are taken in.

Django's ASGI handler writes a whole body to the disk before any view sees it: without this, whoever
reaches the site could fill that disk, with or without a token.
"""

from __future__ import annotations

from django.conf import settings

from webapp.jobs.artefacts.store import DISK_FULL, FULL_TEXT
from webapp.transfer.asgi_tools import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    content_length,
    problem_body,
    send_response,
)


class BoundedBodies:
    """An ASGI application around Django's that answers too large a body itself."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        reason = f"more than the {limit} bytes expected here"
        if (content_length(scope) or 0) > limit:
            await _refuse(send, 413, reason)
            return
        exchange = _Exchange(limit, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except OSError as error:  # the disk that takes the body in
            if exchange.answered or error.errno not in DISK_FULL:
                raise
            await _refuse(send, 507, FULL_TEXT)
        if exchange.too_large and not exchange.answered:
            await _refuse(send, 413, reason)


class _Exchange:
    """One request as it comes and its response as it goes, both watched."""

    def __init__(self, limit: int, receive: Receive, send: Send) -> None:
        self._limit, self._receive, self._send = limit, receive, send
        self._taken = 0
        self.too_large = self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self._taken <= self._limit:
            return message
        self.too_large = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.answered = True
        await self._send(message)


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers, body = problem_body(status, reason)
    await send_response(send, status, {**headers, "connection": "close"}, body)
