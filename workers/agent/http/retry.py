"""Retries with exponential backoff while the server is unavailable."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fedcore.errors import ServerUnavailable
from workers.agent.agent_errors import Busy, Revoked

T = TypeVar("T")
LONGEST_S = 30.0
LONGEST_ON_LINE_S = 2.0  # calls over the line: it is opened again by itself, often at once

log = logging.getLogger(__name__)


def delays(
    jitter: Callable[[], float] = random.random, longest_s: float = LONGEST_S
) -> Iterator[float]:
    """1, 2, 4 ... 30 seconds, each shortened by up to a quarter so that a fleet spreads out."""
    wait_s = 1.0
    while True:
        yield wait_s * (1 - 0.25 * jitter())
        wait_s = min(2 * wait_s, longest_s)


def pause(seconds: float, check: Callable[[], None]) -> None:
    """Wait; ``check`` is called about ten times a second and may raise to give up."""
    until = time.monotonic() + seconds
    while (remaining_s := until - time.monotonic()) > 0:
        check()
        time.sleep(min(0.1, remaining_s))


def keep_trying(
    call: Callable[[], T],
    until: float,
    check: Callable[[], None],
    description: str,
    wait: Callable[[float, Callable[[], None]], None] = pause,
    longest_s: float = LONGEST_S,
) -> T:
    """Repeat a call while the server is unavailable, until ``until`` (of ``time.monotonic``).

    A revocation is the main process's to believe: it asks twice, and ends this process.
    ``wait`` pauses between two calls; it gets the seconds (at most ``longest_s``) and ``check``.
    """
    backoff = delays(longest_s=longest_s)
    while True:
        try:
            return call()
        except (ServerUnavailable, Revoked) as error:
            wait_s = max(next(backoff), error.after_s if isinstance(error, Busy) else 0.0)
            remaining_s = until - time.monotonic()
            if remaining_s <= 0:
                raise
            wait_s = min(wait_s, remaining_s)
            log.info("%s: %s; trying again in %.0f s", description, error, wait_s)
            wait(wait_s, check)
