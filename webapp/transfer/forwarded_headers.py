"""Forwarded headers count from trusted proxies only (``EDGEWISE_TRUSTED_PROXIES``).

Start uvicorn with ``--no-proxy-headers``: it would decide by rules of its own.
"""

from __future__ import annotations

from django.conf import settings

from webapp.common.client_address import client_address, is_trusted, peer_of
from webapp.transfer.asgi_tools import App, Receive, Scope, Send


class ForwardedHeaders:
    """The outermost ASGI application: what is inside sees the caller as the peer."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        peer = peer_of(scope)
        dropped = {b"x-forwarded-for"}
        # Where no proxy is named, it stays: the proxy of an https site needs it.
        if settings.TRUSTED_PROXIES and not is_trusted(peer):
            dropped.add(b"x-forwarded-proto")
        headers = [(name, value) for name, value in scope["headers"] if name not in dropped]
        address = client_address(scope)
        client = scope.get("client") if address == str(peer) or not address else (address, 0)
        await self._app({**scope, "client": client, "headers": headers}, receive, send)
