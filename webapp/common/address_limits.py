"""Limits by client address. One address at its limit does not slow another.

Each web process counts in its own memory, so a limit holds without Redis, and attempts side by side
cannot outrun it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from django.conf import settings

from fedcore.errors import EdgewiseError
from webapp.common.client_address import limit_address
from webapp.common.rate import Rate

MAX_ADDRESSES = 20_000


class TooManyRequests(EdgewiseError):
    """The caller must wait. ``wait``: whole seconds until it may try again."""

    retryable = True
    status = 429

    def __init__(self, reason: str, wait_s: float) -> None:
        self.reason = reason
        self.wait = max(1, math.ceil(wait_s))
        super().__init__(f"{reason}; try again in {self.wait} s")


class AddressLimit:
    """A token bucket per client address (IPv6: per /64), for at most MAX_ADDRESSES of them."""

    def __init__(self, reason: str, rate: Callable[[], Rate]) -> None:
        self._reason, self._rate = reason, rate
        # Address -> (tokens, when they were counted), the address used last at the end.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, request: Any) -> None:
        """Count an attempt. Raises TooManyRequests where the address is at its limit."""
        rate, address, now = self._rate(), limit_address(request), time.monotonic()
        with self._lock:
            tokens, counted_at = self._buckets.get(address, (float(rate.count), now))
            tokens += (now - counted_at) * rate.count / rate.seconds
            tokens = min(tokens, float(rate.count))
            if tokens >= 1:
                self._store(address, tokens - 1, now)
                return
        raise TooManyRequests(self._reason, (1 - tokens) * rate.seconds / rate.count)

    def give_back(self, request: Any) -> None:
        """The attempt succeeded: it was no guess and does not count."""
        address = limit_address(request)
        with self._lock:
            if address in self._buckets:
                tokens, counted_at = self._buckets[address]
                self._store(address, tokens + 1, counted_at)

    def clear(self) -> None:
        with self._lock:
            self._buckets.clear()

    def _store(self, address: str, tokens: float, counted_at: float) -> None:
        self._buckets[address] = (tokens, counted_at)
        self._buckets.move_to_end(address)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)


PASSWORD_LIMIT = AddressLimit(
    "too many passwords were tried from this address", lambda: settings.PASSWORD_RATE
)
ENROL_LIMIT = AddressLimit(
    "too many enrolments were tried from this address", lambda: settings.ENROL_RATE
)
