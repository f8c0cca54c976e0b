"""A limit such as ``30/min``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True)
class Rate:
    """``count`` attempts in ``seconds``, and at most so many at once."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, variable: str, text: str) -> Rate:
        """Raises ImproperlyConfigured naming the variable."""
        match = re.fullmatch(r"([1-9][0-9]{0,8})/(s|sec|m|min|h|hour|d|day)", text)
        if match is None:
            raise ImproperlyConfigured(f"{variable} must be a rate such as 30/min, not {text!r}")
        return cls(int(match[1]), SECONDS[match[2][0]])
