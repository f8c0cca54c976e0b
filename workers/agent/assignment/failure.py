"""How what went wrong on a device is answered."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.errors import EdgewiseError, ServerRefused, Stopped
from workers.agent.assignment.assignment import CannotDo

# The server's answers that mean: this assignment is no longer this device's, say nothing more.
OVER = frozenset({401, 404, 409})


@dataclass(frozen=True)
class Failure:
    """How an exception is answered: ``refuse`` means never on this device."""

    reason: str
    retryable: bool
    refuse: bool = False


def failure_of(error: Exception) -> Failure | None:
    """What to tell the server about an exception; None: nothing, the assignment is over."""
    if isinstance(error, CannotDo):
        return Failure(str(error), False, refuse=True)
    if isinstance(error, ServerRefused):
        return None if error.status in OVER else Failure(str(error), False)
    if isinstance(error, EdgewiseError) and not isinstance(error, Stopped):
        return Failure(str(error), error.retryable)
    if isinstance(error, OSError):
        return Failure(f"this device: {error}", True)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Failure(
            "out of memory on this device: lower the batch size or the source length, or take a "
            "smaller model",
            False,
        )
    return Failure(f"unexpected {type(error).__name__}: {error}", True)
