"""A limit on the size of request bodies.

Django's ASGI handler writes a whole body to disk before it calls a view. Without a limit, anybody
who reaches the site could fill that disk, even without a token.
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
    """An ASGI application around Django's that refuses larger bodies with 413."""

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
        except OSError as error:  # the disk that the body is written to
            if exchange.answered or error.errno not in DISK_FULL:
                raise
            await _refuse(send, 507, FULL_TEXT)
        if exchange.too_large and not exchange.answered:
            await _refuse(send, 413, reason)


class _Exchange:
    """Counts the bytes of a request, and notes whether a response was started."""

    def __init__(self, limit: int, receive: Receive, send: Send) -> None:
        self._limit, self._receive, self._send = limit, receive, send
        self._received = 0
        self.too_large = self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received <= self._limit:
            return message
        self.too_large = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.answered = True
        await self._send(message)


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers, body = problem_body(status, reason)
    await send_response(send, status, {**headers, "connection": "close"}, body)
