"""The small calls of devices, answered by a few threads that keep their database connection.

A thousand devices call every few seconds, and a round waits for them: sessions, cookies, messages
and log-in locks are of no use to them, and a new thread and connection for each call costs more
than the call. The views are the same ones that the address table names.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.core.handlers.exception import convert_exception_to_response
from django.db import close_old_connections, connections
from django.http import HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.middleware.security import SecurityMiddleware

from webapp.jobs.artefacts.streaming import DIRECT_KEY
from webapp.transfer.asgi_tools import App, Receive, Scope, Send

PATHS = re.compile(
    r"POST /api/v1/device/(hello|measurements)/"
    r"|POST /api/v1/device/assignments/[0-9a-f-]{36}/(accept|progress|report|fail|refuse)/"
    r"|GET /api/v1/device/artefacts/[0-9a-f]{64}/"
)
THREADS = 8


class _DeviceHandler(BaseHandler):
    """Django's handling of a request, with what a machine's call needs of the middleware."""

    def __init__(self) -> None:
        super().__init__()
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        inner = convert_exception_to_response(self._get_response)  # type: ignore[attr-defined]
        for middleware in (CommonMiddleware, SecurityMiddleware):
            inner = convert_exception_to_response(middleware(inner))
        self._middleware_chain = inner


class DeviceCalls:
    """An ASGI application around Django's that answers these calls itself."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._handler = _DeviceHandler()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="device-calls")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = PATHS.fullmatch(f"{scope['method']} {scope['path']}")
        if not ours or not (scope["method"] == "POST" or scope.get(DIRECT_KEY)):
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        loop = asyncio.get_running_loop()
        response = await loop.run_in_executor(self._threads, self._answer, scope, body)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in response.items()]
        start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": response.content})  # type: ignore[attr-defined]

    def _answer(self, scope: Scope, body: bytes) -> HttpResponseBase:
        request = ASGIRequest(scope, BytesIO(body))
        close_old_connections()
        try:
            return self._handler.get_response(request)
        finally:
            _keep_connections()
            request.close()


async def _body(receive: Receive) -> bytes | None:
    """The whole of a small body (its size is bounded before); None where the caller went away."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _keep_connections() -> None:
    """Let this thread's connections live until one breaks (``close_old_connections`` sees that)."""
    for connection in connections.all(initialized_only=True):
        connection.close_at = None
