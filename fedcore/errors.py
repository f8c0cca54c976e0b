"""All errors of this project. Messages say what to do next; attributes whether to retry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class EdgewiseError(Exception):
    """Base class. ``retryable``: the same call may succeed later without any change."""

    retryable = False


@dataclass(frozen=True)
class Fault:
    """One error of an input: its place (dotted path, as in the JSON) and what to do."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(EdgewiseError):
    """A job specification with errors, all of them collected in ``faults``."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class ModelError(EdgewiseError):
    """A model that cannot be found, loaded or used as a T5-family summarizer."""


class DataError(EdgewiseError):
    """A dataset that cannot be read, lacks a column, is empty or too small."""


class TrainingError(EdgewiseError):
    """Local training that cannot go on, such as a loss that is not finite."""


class Stopped(EdgewiseError):
    """Local work that stopped because it was cancelled or revoked."""


class WireError(EdgewiseError):
    """A frame that is truncated, oversized, mis-shaped, not finite or meant for another base."""


class FoldError(EdgewiseError):
    """An aggregation that cannot produce a model, such as one without any update."""


class ServerUnavailable(EdgewiseError):
    """The server did not answer; the same request may succeed later."""

    retryable = True


class ServerRefused(EdgewiseError):
    """The server answered no. ``status`` is the HTTP status, the text is its reason."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
