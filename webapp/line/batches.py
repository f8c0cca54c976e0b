"""Runs the database work of all lines of a process in few threads.

While a batch of frames is applied, the next ones gather. So a busy site needs few statements, and
a quiet one does not wait. The threads keep their database connections open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from django.db import close_old_connections, connections

from fedcore.formats.line_messages import Message
from webapp.line.calls import Origin
from webapp.line.frames import Received, apply_frames

T = TypeVar("T")
THREADS = 2  # one applies frames, while the other one opens and closes lines
MAX_BATCH = 200


class Batches:
    """Use it in one event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="line")
        self._waiting: list[tuple[Received, asyncio.Future[Message]]] = []
        self._applying: asyncio.Task[None] | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """The result of a call that uses the database, or what it raised."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, connected, call)

    async def apply(self, origin: Origin, message: Message) -> Message:
        """Apply a frame; returns its answer. Raises LineClosed or DatabaseError."""
        done: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append(((origin, message), done))
        if self._applying is None:
            self._applying = asyncio.create_task(self._apply_all())
        return await done

    async def _apply_all(self) -> None:
        """Apply batch after batch until no frame waits."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                # The frames of lines that have ended are not begun.
                batch = [item for item in batch if not item[1].done()]
                answers: Sequence[Message | Exception]
                try:
                    answers = await self.run(partial(apply_frames, [frame for frame, _ in batch]))
                except Exception as error:  # raised again where each frame is awaited
                    answers = [error] * len(batch)
                for (_, done), answer in zip(batch, answers, strict=True):
                    if done.done():  # its line has ended
                        continue
                    if isinstance(answer, Exception):
                        done.set_exception(answer)
                    else:
                        done.set_result(answer)
        finally:
            self._applying = None


def connected(call: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return call()
    finally:
        # The connections stay open until ``close_old_connections`` finds one broken.
        for connection in connections.all(initialized_only=True):
            connection.close_at = None
