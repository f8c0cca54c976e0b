"""Errors of the device agent."""

from __future__ import annotations

from fedcore.errors import EdgewiseError, ServerRefused, ServerUnavailable


class AgentError(EdgewiseError):
    """Something that a person must fix on this device; the text says how."""


class Busy(ServerUnavailable):
    """The server asked to try again later: in ``after_s`` seconds, 0 if it did not say when."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Obstructed(Busy):
    """No WebSocket came through. ``certain``: the next one will not either."""

    def __init__(self, message: str, after_s: float = 0.0, certain: bool = False) -> None:
        super().__init__(message, after_s)
        self.certain = certain


class Intercepted(Busy):
    """Something between this device and the site answered in its place, with ``status``."""

    def __init__(self, message: str, status: int, after_s: float = 0.0) -> None:
        super().__init__(message, after_s)
        self.status = status


class Revoked(ServerRefused):
    """The server no longer accepts this device's credential."""


class UnknownKey(EdgewiseError):
    """The site signs with another key than this device knows: its next hello may tell why."""


class EnvelopeRefused(EdgewiseError):
    """A message that is forged, expired, replayed or meant for another device."""
