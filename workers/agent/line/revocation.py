"""A revocation is asked for twice, minutes apart, before the agent ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from workers.agent.agent_errors import Revoked

CONFIRM_S = 120.0  # a site that was restored by mistake, or half, is mended meanwhile


class Revocation:
    """What the site has said, in signed answers, about this device's credential."""

    def __init__(
        self, confirm_s: float = CONFIRM_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._confirm_s, self._clock = confirm_s, clock
        self._since: float | None = None

    def hear(self, error: Revoked) -> float:
        """Seconds after which to ask again. Raises the error once it is confirmed."""
        now = self._clock()
        if self._since is None:
            self._since = now
        remaining_s = self._since + self._confirm_s - now
        if remaining_s <= 0:
            raise error
        return remaining_s

    def disproved(self) -> None:
        """The site took the credential."""
        self._since = None
