"""When a device opens its line again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from workers.agent.http.retry import delays

STEADY_S = 10.0  # a line that lasted this long was healthy


class LineBackoff:
    """1, 2, 4 ... 30 s, each shortened by up to a quarter; 0 after a line that was healthy.

    A line that was greeted and cut soon is opened at once too, but not twice in a row.
    """

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._waits: Iterator[float] = delays(jitter)
        self._hurried = False

    def after_refusal(self) -> float:
        """Seconds to wait after a line that did not open, or that another one replaced."""
        return next(self._waits)

    def after_cut(self, lasted_s: float) -> float:
        """Seconds to wait after a line which was greeted and then lasted ``lasted_s``."""
        steady = lasted_s >= STEADY_S
        if not steady and self._hurried:
            return next(self._waits)
        if steady:
            self._waits = delays(self._jitter)
        self._hurried = not steady
        return 0.0
