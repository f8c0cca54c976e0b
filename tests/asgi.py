"""The site called as an ASGI server calls it, for what goes past Django's test client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpResponse

PIECE = 65_536


class Answer(HttpResponse):
    """With ``json``, as the answers of Django's test client have it."""

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Exchange:
    """One request: what the server hears, piece by piece, and what it says."""

    body: list[bytes]
    sent: list[dict[str, Any]] = field(default_factory=list)
    taken: int = 0
    hangs_up: bool = False  # before the body's end, instead of it
    stalls: bool = False  # says that more will come, and sends nothing

    async def receive(self) -> dict[str, Any]:
        if self.taken < len(self.body):
            self.taken += 1
            last = self.taken == len(self.body) and not (self.hangs_up or self.stalls)
            chunk = self.body[self.taken - 1]
            return {"type": "http.request", "body": chunk, "more_body": not last}
        if self.hangs_up:
            return {"type": "http.disconnect"}
        await asyncio.sleep(3600)
        raise AssertionError("nobody waits that long")

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(dict(message))

    @property
    def answer(self) -> Answer:
        start = self.sent[0]
        content = b"".join(message.get("body", b"") for message in self.sent[1:])
        answer = Answer(content, status=start["status"])
        for name, value in start["headers"]:
            answer[name.decode().title()] = value.decode()
        return answer


def scope(method: str, path: str, headers: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    raw_headers = [(b"host", b"localhost")]
    raw_headers += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "headers": raw_headers,
        "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "", **changes,
    }  # fmt: skip


def call(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | Iterable[bytes] = b"",
    hangs_up: bool = False,
    stalls: bool = False,
    **changes: Any,
) -> Exchange:
    """Send a request and wait for its end, from a test that is not asynchronous."""
    from webapp.asgi import application

    if isinstance(body, bytes):
        body = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
    parts = list(body)
    exchange = Exchange(parts or [b""], hangs_up=hangs_up, stalls=stalls)

    async def run() -> None:
        await asyncio.wait_for(
            application(scope(method, path, headers, **changes), exchange.receive, exchange.send),
            60,
        )

    async_to_sync(run)()
    return exchange
