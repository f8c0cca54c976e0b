"""Limits per device: messages and bytes a second. Who exceeds them is slowed, then cut."""

from __future__ import annotations

import asyncio
import time

from django.conf import settings

from fedcore.formats.line_messages import TOO_MUCH
from webapp.line.closing import LineClosed

# What a device may save up, in seconds of its limit: it sends again what an outage left over.
MESSAGE_BURST_S, BYTE_BURST_S = 8.0, 16.0
OPENINGS_PER_S, OPENING_BURST_S = 0.5, 60.0


class TokenBucket:
    """``take`` returns the seconds until the bucket allows what was taken; 0 if it does now."""

    def __init__(self, per_s: float, burst_s: float) -> None:
        self._per_s, self._burst = per_s, per_s * burst_s
        self._tokens, self._at = self._burst, time.monotonic()

    def take(self, count: float) -> float:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s) - count
        self._at = now
        return max(0.0, -self._tokens / self._per_s)


class DeviceLimits:
    """The limits of one device in one web process. A new line begins with what is left."""

    def __init__(self) -> None:
        self.frames = FrameLimit()
        self._openings = TokenBucket(OPENINGS_PER_S, OPENING_BURST_S)

    def may_open(self) -> bool:
        """Whether the device may open a line now. One that is refused does not count."""
        if not self._openings.take(1):
            return True
        self._openings.take(-1)
        return False


class FrameLimit:
    """Messages and bytes."""

    def __init__(self) -> None:
        self._messages = TokenBucket(settings.LINE_MESSAGES_PER_S, MESSAGE_BURST_S)
        self._bytes = TokenBucket(settings.LINE_BYTES_PER_S, BYTE_BURST_S)
        self._slowed_s = 0.0

    async def spend(self, size_bytes: int) -> None:
        """Wait as long as the limits ask. Raises LineClosed where waiting did not help."""
        wait_s = max(self._messages.take(1), self._bytes.take(size_bytes))
        if not wait_s:
            self._slowed_s = 0.0
            return
        self._slowed_s += wait_s
        if self._slowed_s > settings.LINE_PATIENCE_S:
            raise LineClosed(TOO_MUCH)
        await asyncio.sleep(wait_s)
