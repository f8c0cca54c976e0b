"""A small ASGI application that shows what a proxy passes on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

FIRST, SECOND = b"first ", b"second"
PAUSE_S = 1.0


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await _echo(scope, receive, send)
    elif scope["path"].endswith("/update/"):
        await _count(receive, send)
    elif scope["path"] == "/api/v1/device/line/":
        await _two_parts(send)
    else:
        while (await receive()).get("more_body"):
            pass
        await _answer(send, json.dumps(_headers(scope)).encode())


def _headers(scope: dict[str, Any]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in scope["headers"]}


async def _echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
    await send({"type": "websocket.send", "text": json.dumps(_headers(scope))})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


async def _count(receive: Any, send: Any) -> None:
    """Answers after the first piece has arrived, although more follow: was it streamed?"""
    event = await receive()
    await _answer(send, str(len(event["body"])).encode())


async def _two_parts(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": FIRST, "more_body": True})
    await asyncio.sleep(PAUSE_S)
    await send({"type": "http.response.body", "body": SECOND})


async def _answer(send: Any, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
