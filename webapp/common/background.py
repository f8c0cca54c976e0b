"""Calls that talk to the broker, in a thread of their own: no request and no frame waits for it."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

MAX_WAITING = 1_000  # the oldest calls are dropped; what they would have sent is sent again

Call = Callable[[], object]


class Background:
    """Runs calls in their order. The thread starts with the first call of the process."""

    def __init__(self) -> None:
        self._pid = 0
        self._start()

    def __call__(self, call: Call) -> None:
        if self._pid != os.getpid():  # threads do not survive a fork
            self._pid = os.getpid()
            self._start()
            threading.Thread(target=self._run, name="background", daemon=True).start()
        self._calls.append(call)
        self._pending.set()

    def _start(self) -> None:
        self._calls: deque[Call] = deque(maxlen=MAX_WAITING)
        self._pending = threading.Event()

    def _run(self) -> None:
        while True:
            self._pending.wait()
            self._pending.clear()
            while self._calls:
                try:
                    self._calls.popleft()()
                except Exception:  # a fault of one call must not end the thread
                    log.exception("a call in the background failed")


def at_once(call: Call) -> None:
    call()


# Tests replace it by ``at_once``.
runner: Callable[[Call], None] = Background()


def in_background(call: Call) -> None:
    runner(call)
