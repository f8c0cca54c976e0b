"""The server's time of day: small devices often boot without a set clock."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

TOLERATED_S = 5.0


def steady() -> float:
    """Seconds of a clock that is never set; it includes time asleep where the system can."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


# The time of day when the agent started. Setting the clock later changes nothing.
_EPOCH = time.time() - steady()


class Clock:
    """This machine's clock, corrected by the server's when it is far off.

    Differences up to TOLERATED_S are ignored: the header has whole seconds, answers take time.
    """

    def __init__(self) -> None:
        self.offset_s = 0.0

    @property
    def epoch_s(self) -> float:
        """The corrected time at which ``steady`` was 0, equal in all processes of a machine."""
        return _EPOCH + self.offset_s

    @epoch_s.setter
    def epoch_s(self, epoch_s: float) -> None:
        self.offset_s = epoch_s - _EPOCH

    def observe(self, date_header: str | None) -> None:
        """Update the offset; a missing or malformed header changes nothing."""
        if not date_header:
            return
        try:
            self.observe_time(parsedate_to_datetime(date_header).timestamp())
        except (TypeError, ValueError):
            return

    def observe_time(self, server_s: float) -> None:
        """Update the offset by the server's time now, in seconds since 1970."""
        ahead_s = server_s - (_EPOCH + steady())
        self.offset_s = ahead_s if abs(ahead_s) > TOLERATED_S else 0.0

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return _EPOCH + steady() + self.offset_s

    def iso(self) -> str:
        return datetime.fromtimestamp(self.now(), timezone.utc).isoformat()


def seconds_of(iso: str) -> float:
    """Seconds since 1970 of an ISO 8601 string; without an offset it is UTC."""
    moment = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()
