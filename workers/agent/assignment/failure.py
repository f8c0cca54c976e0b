"""Which failure, if any, the device reports for an exception."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.errors import EdgewiseError, ServerRefused, Stopped
from workers.agent.assignment.contract import CannotDo

# HTTP statuses that mean: the assignment is no longer this device's, so nothing is reported.
OVER = frozenset({401, 404, 409})


@dataclass(frozen=True)
class Failure:
    """The report on an exception. ``refuse``: this device can never do the assignment."""

    reason: str
    retryable: bool
    refuse: bool = False
    out_of_memory: bool = False


def failure_of(error: Exception) -> Failure | None:
    """The failure to report; None where the assignment is over."""
    if isinstance(error, CannotDo):
        return Failure(str(error), False, refuse=True)
    if isinstance(error, ServerRefused):
        return None if error.status in OVER else Failure(str(error), False)
    if isinstance(error, EdgewiseError) and not isinstance(error, Stopped):
        return Failure(str(error), error.retryable)
    if isinstance(error, OSError):
        return Failure(f"this device: {error}", True)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failure("out of memory on this device", False, out_of_memory=True)
    return Failure(f"unexpected {type(error).__name__}: {error}", True)
