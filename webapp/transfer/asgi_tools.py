"""Shared by the ASGI applications around Django: types, threads, headers, responses."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from channels.db import database_sync_to_async  # type: ignore[import-untyped]

from webapp.common.problem_document import CONTENT_TYPE, document

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
T = TypeVar("T")

# Hashing and disk access release the GIL, so transfers use every core in threads of their own.
_THREADS = ThreadPoolExecutor(max_workers=8 + 2 * (os.cpu_count() or 1), thread_name_prefix="bulk")


async def run_in_thread(call: Callable[..., T], *args: Any) -> T:
    """Run a blocking call (disk, hash) in a thread; a cancelled caller waits for its end first."""
    running = asyncio.get_running_loop().run_in_executor(_THREADS, partial(call, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def run_database_call(call: Callable[..., T], *args: Any) -> T:
    """The same for a call that uses the database."""
    done: T = await database_sync_to_async(call, thread_sensitive=False, executor=_THREADS)(*args)
    return done


def header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def content_length(scope: Scope) -> int | None:
    """Content-Length; None if it is missing or invalid."""
    text = header(scope, b"content-length")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


async def send_response(
    send: Send, status: int, headers: Mapping[str, str], body: bytes = b"", more: bool = False
) -> None:
    """Send a complete response; ``more`` leaves the exchange open although all of it is sent."""
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    if status != 204:
        encoded.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def problem_body(status: int, reason: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of a problem document."""
    return {"content-type": CONTENT_TYPE}, json.dumps(document(status, reason)).encode()
