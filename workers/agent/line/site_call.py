"""A call to the site whose caller does not wait for an absent site: it is told, and may retry."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from typing import Any, Protocol

import msgspec

from fedcore.errors import ServerRefused, ServerUnavailable
from fedcore.formats.line_bodies import UpKind
from fedcore.formats.line_messages import Message, MessageError
from workers.agent.agent_errors import Busy
from workers.agent.http.server_api import TRY_LATER
from workers.agent.http.socket import Check, no_check
from workers.agent.line.device_line import Line

DOWN_S = 1.0  # a call fails once the line has been down, and the call waiting, for so long
ANSWER_S = 60.0  # the site is there and does not answer
TICK_S = 0.1


class Caller(Protocol):
    """A blocking call; ``check`` runs about ten times a second and may raise to give up.

    Raises ServerUnavailable where the same call may succeed later, and ServerRefused.
    """

    def call(self, kind: UpKind, body: Any, check: Check = no_check) -> dict[str, Any]: ...


async def call_site(line: Line, kind: UpKind, body: Any) -> Message:
    """Raises ServerUnavailable while the line is down, and ServerRefused for too large a body."""
    began = time.monotonic()
    answer = asyncio.ensure_future(line.call(kind, body))
    try:
        while True:
            done, _ = await asyncio.wait({answer}, timeout=DOWN_S)
            if done:
                return answer.result()
            now = time.monotonic()
            if not line.is_connected and now - line.down_since >= DOWN_S:
                raise ServerUnavailable(f"no line to the site ({line.problem})")
            if now - began > ANSWER_S:
                raise ServerUnavailable(f"the site did not answer within {ANSWER_S:.0f} s")
    except MessageError as error:
        raise ServerRefused(str(error), 413) from error
    finally:
        answer.cancel()


def checked(status: int, body: bytes | msgspec.Raw) -> dict[str, Any]:
    """The body of a success; raises what any other status means."""
    values = msgspec.json.decode(body)
    if status < 300:
        return values if isinstance(values, dict) else {}
    detail = str(values.get("detail") or f"the site answered {status}")
    if status in TRY_LATER or status == 401:  # whether it is revoked, a new line will tell
        raise Busy(detail)
    raise ServerRefused(detail, status)


class LoopCaller:
    """Calls from a thread of the process that holds the line."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self._line, self._loop = line, loop

    def call(self, kind: UpKind, body: Any, check: Check = no_check) -> dict[str, Any]:
        future = asyncio.run_coroutine_threadsafe(call_site(self._line, kind, body), self._loop)
        try:
            while True:
                done, _ = concurrent.futures.wait({future}, TICK_S)
                if done:
                    message = future.result()
                    return checked(message.status, message.body)
                check()
        finally:
            future.cancel()
