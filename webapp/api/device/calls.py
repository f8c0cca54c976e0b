"""A fast path for small device calls: few threads with persistent database connections.

A thousand devices call every few seconds. They need no sessions, cookies, messages or login locks,
and a new thread and connection per call would cost more than the call. The views are those of the
URL configuration.
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

PATHS = re.compile(r"GET /api/v1/device/artefacts/[0-9a-f]{64}/")
THREADS = 8


class _DeviceHandler(BaseHandler):
    """Django's request handler with only the middleware that a device call needs."""

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
    """An ASGI application around Django's that handles these calls itself."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._handler = _DeviceHandler()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="device-calls")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        matches = PATHS.fullmatch(f"{scope['method']} {scope['path']}")
        if not matches or not scope.get(DIRECT_KEY):
            await self._app(scope, receive, send)
            return
        parts = []  # a small body: BoundedBodies limits it
        is_complete = False
        while not is_complete:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            is_complete = not message.get("more_body")
        body = b"".join(parts)
        loop = asyncio.get_running_loop()
        response = await loop.run_in_executor(self._threads, self._response, scope, body)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in response.items()]
        start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": response.content})  # type: ignore[attr-defined]

    def _response(self, scope: Scope, body: bytes) -> HttpResponseBase:
        request = ASGIRequest(scope, BytesIO(body))
        close_old_connections()
        try:
            return self._handler.get_response(request)
        finally:
            # The connections stay open until ``close_old_connections`` finds one broken.
            for connection in connections.all(initialized_only=True):
                connection.close_at = None
            request.close()
