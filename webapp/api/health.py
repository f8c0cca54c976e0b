"""``/healthz`` and ``/readyz``, for proxies, containers and monitoring.

Both are answered before Django sees the request: without a log-in, a session, a host check or a
redirect to https. They contain no secret and no text of an error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from webapp.api.readiness import CHECKS
from webapp.transfer.asgi_tools import App, Receive, Scope, Send, send_response

log = logging.getLogger(__name__)

HEALTH_PATH, READY_PATH = "/healthz", "/readyz"
CACHE_S = 1.0
LIMIT_S = 5.0  # a check that takes longer counts as failed
TOO_LATE = f"no answer within {LIMIT_S:.0f} s"
CHECK_FAILED = "the check failed; the site's log says why"
JSON = {"content-type": "application/json", "cache-control": "no-store"}

# Returns why a part does not work, in words for everybody; an empty text where it works.
Check = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Readiness:
    """The result of all checks: a reason by name, empty where the part works."""

    reasons: Mapping[str, str]

    @property
    def ready(self) -> bool:
        return not any(self.reasons.values())

    def body(self) -> bytes:
        checks = {
            name: {"ok": not reason, "reason": reason} for name, reason in self.reasons.items()
        }
        return json.dumps({"ready": self.ready, "checks": checks}).encode()


class ReadinessProbe:
    """Runs the checks at most once per CACHE_S, however many ask. Never two of one kind at once."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._running: dict[str, asyncio.Task[str]] = {}
        self._latest: asyncio.Task[Readiness] | None = None
        self._expires = 0.0

    async def readiness(self) -> Readiness:
        if self._latest is None or (self._latest.done() and time.monotonic() > self._expires):
            self._latest = asyncio.create_task(self._run())
        return await asyncio.shield(self._latest)

    async def _run(self) -> Readiness:
        results = await asyncio.gather(*(self._reason(name) for name in self._checks))
        self._expires = time.monotonic() + CACHE_S
        return Readiness(dict(zip(self._checks, results, strict=True)))

    async def _reason(self, name: str) -> str:
        """A check that hangs is left running, and the next call waits for it."""
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.ensure_future(self._checks[name]())
        done, _ = await asyncio.wait([task], timeout=LIMIT_S)
        if not done:
            return TOO_LATE
        del self._running[name]
        if error := task.exception():
            log.error("the check of %s failed", name, exc_info=error)
            return CHECK_FAILED
        return task.result()


class Health:
    """Answers the two addresses; everything else goes to ``app``."""

    def __init__(self, app: App, checks: Mapping[str, Check] = CHECKS) -> None:
        self._app = app
        self._probe = ReadinessProbe(checks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] not in ("GET", "HEAD") or path not in (HEALTH_PATH, READY_PATH):
            await self._app(scope, receive, send)
            return
        status, body = 200, b'{"ok": true}'
        if path == READY_PATH:
            readiness = await self._probe.readiness()
            status, body = (200 if readiness.ready else 503), readiness.body()
        await send_response(send, status, JSON, b"" if scope["method"] == "HEAD" else body)
