"""How long to wait before asking a silent server again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fedcore.errors import ServerUnavailable
from workers.agent.agent_errors import Busy

T = TypeVar("T")
LONGEST_S = 30.0

log = logging.getLogger(__name__)


def delays(spread: Callable[[], float] = random.random) -> Iterator[float]:
    """1, 2, 4 ... 30 seconds, each shortened by up to a quarter so that a fleet does not march."""
    wait_s = 1.0
    while True:
        yield wait_s * (1 - 0.25 * spread())
        wait_s = min(2 * wait_s, LONGEST_S)


def pause(seconds: float, check: Callable[[], None]) -> None:
    """Wait; ``check`` is called about ten times a second and may raise to give up."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        check()
        time.sleep(min(0.1, left_s))


def keep_trying(
    call: Callable[[], T],
    until: float,
    check: Callable[[], None],
    what: str,
    wait: Callable[[float, Callable[[], None]], None] = pause,
) -> T:
    """Call again while the server is unavailable, until ``until`` (of ``time.monotonic``).

    ``wait`` is how it waits between two calls; it is given the seconds and ``check``.
    """
    waits = delays()
    while True:
        try:
            return call()
        except ServerUnavailable as error:
            wait_s = max(next(waits), error.after_s if isinstance(error, Busy) else 0.0)
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise
            log.info("%s: %s; again in %.0f s", what, error, min(wait_s, left_s))
            wait(min(wait_s, left_s), check)
