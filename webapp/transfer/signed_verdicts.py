"""Signs the refusals and redirects that devices are answered (``fedcore.formats.verdicts``)."""

from __future__ import annotations

import time

from fedcore.formats.verdicts import (
    NONCE_HEADER,
    VERDICT_HEADER,
    SiteVerdict,
    body_of,
    digest,
    is_nonce,
    request_name,
    to_header,
)
from webapp.devices.signing import signature_of
from webapp.transfer.asgi_tools import App, Message, Receive, Scope, Send, header

STARTS = ("http.response.start", "websocket.http.response.start")
SCHEME = "Device "


class SignedVerdicts:
    """The outermost application: no answer to a device leaves the site past it."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        nonce = header(scope, NONCE_HEADER.lower().encode())
        if not is_nonce(nonce):  # not a device's request
            await self._app(scope, receive, send)
            return

        async def send_signed(message: Message) -> None:
            if message["type"] in STARTS and message["status"] >= 300:
                message = _with_verdict(message, scope, nonce)
            await send(message)

        await self._app(scope, receive, send_signed)


def _with_verdict(start: Message, scope: Scope, nonce: str) -> Message:
    token = header(scope, b"authorization").removeprefix(SCHEME).strip()
    locations = [
        value.decode("latin-1") for name, value in start["headers"] if name.lower() == b"location"
    ]
    verdict = SiteVerdict(
        credential=digest(token),
        request=request_name(scope.get("method", "GET"), scope["path"]),
        nonce=nonce,
        status=start["status"],
        target=digest(locations[0]) if locations else "",
        at=int(time.time()),
    )
    body = body_of(verdict)
    signed = (VERDICT_HEADER.lower().encode(), to_header(body, signature_of(body)).encode())
    return {**start, "headers": [*start["headers"], signed]}
