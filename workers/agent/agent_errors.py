"""What can go wrong on a device beside the federated learning itself."""

from __future__ import annotations

from fedcore.errors import EdgewiseError, ServerRefused, ServerUnavailable


class AgentError(EdgewiseError):
    """Something a person at this device must mend; the text says how."""


class Busy(ServerUnavailable):
    """The server asked to come again later. ``after_s`` is its wish in seconds, 0 if none."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Revoked(ServerRefused):
    """The server no longer knows this device's credential."""


class EnvelopeRefused(EdgewiseError):
    """A message that is forged, expired, replayed or meant for another device."""
