"""What the tests of a line share: its handlers, and waiting without blocking its loop."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from fedcore.formats.line_bodies import DownBody, DownKind, Hello, HelloAnswer
from fedcore.formats.line_messages import body_of
from workers.agent.line.device_line import Line

HELLO = body_of(Hello("boot-1"))


class Recorder:
    """Stores the site's frames; refuses to, as a full disk does, while ``is_full``."""

    def __init__(self) -> None:
        self.greetings: list[HelloAnswer] = []
        self.frames: list[tuple[DownKind, DownBody]] = []
        self.problems: list[str] = []  # that the line has had, in their order
        self.is_full = False

    def greeted(self, answer: HelloAnswer) -> None:
        self.greetings.append(answer)

    def received(self, kind: DownKind, body: DownBody) -> None:
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")
        self.frames.append((kind, body))

    def connection_changed(self, line: Line) -> None:
        if line.problem:
            self.problems.append(line.problem)


async def until(what: Callable[[], Any], within_s: float = 30.0) -> Any:
    end = time.monotonic() + within_s
    while not (result := what()):
        assert time.monotonic() < end, "did not happen in time"
        await asyncio.sleep(0.01)
    return result


def measured(number: int) -> dict[str, Any]:
    return {"activity": {"assignment": None, "phase": "", "step": number}, "samples": []}
