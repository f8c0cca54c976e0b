"""Checks the server's signed messages: only these may start or stop work on this device."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from workers.agent.agent_errors import EnvelopeRefused
from workers.agent.state.site_key import SiteKey

MAX_BODY = 4096


@dataclass(frozen=True)
class SignedMessage:
    """A verified message. ``expires_at`` is in seconds since 1970."""

    kind: str
    assignment: str
    nonce: str
    expires_at: float
    reason: str = ""

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> SignedMessage:
        assignment, nonce = body.get("assignment"), body.get("nonce")
        expires_at = body.get("expires_at")
        strings = isinstance(assignment, str) and isinstance(nonce, str) and 8 <= len(nonce) <= 200
        if not strings or isinstance(expires_at, bool) or not isinstance(expires_at, (int, float)):
            raise EnvelopeRefused("the message lacks its assignment, nonce or expiry")
        reason = str(body.get("reason") or "")
        return cls(str(body["kind"]), str(assignment), str(nonce), float(expires_at), reason)


def open_envelope(
    envelope: Any, kind: str, device_id: int, key: SiteKey, now: float
) -> SignedMessage:
    """Check signature, kind, device and expiry, but not the nonce. Raises EnvelopeRefused."""
    if not isinstance(envelope, Mapping):
        raise EnvelopeRefused("the message is not an envelope")
    text, signature = envelope.get("body"), envelope.get("signature")
    if not isinstance(text, str) or not isinstance(signature, str) or len(text) > MAX_BODY:
        raise EnvelopeRefused("the message is not an envelope")
    try:
        is_signed = key.has_signed(text.encode(), base64.b64decode(signature, validate=True))
        body = json.loads(text) if is_signed else None
    except (binascii.Error, ValueError) as error:
        raise EnvelopeRefused("the message is not a signed JSON object") from error
    if not is_signed:
        raise EnvelopeRefused("the signature is not the server's")
    if not isinstance(body, dict):
        raise EnvelopeRefused("the message is not a JSON object")
    if body.get("kind") != kind:
        raise EnvelopeRefused(f"the message is of kind {body.get('kind')!r}, not {kind!r}")
    if body.get("device") != device_id:
        raise EnvelopeRefused(f"the message is for device {body.get('device')!r}")
    message = SignedMessage.parse(body)
    if message.expires_at < now:
        raise EnvelopeRefused(f"the message expired {now - message.expires_at:.0f} s ago")
    return message


class Nonces(Protocol):
    """Remembers the nonces of messages until they expire."""

    def has_nonce(self, nonce: str) -> bool: ...

    def see_nonce(self, nonce: str, expires_at: float, now: float) -> bool:
        """Remember; returns False for one that was seen before."""


class Gatekeeper:
    """Opens the envelopes meant for one device, each once."""

    def __init__(
        self, device_id: int, key: SiteKey, nonces: Nonces, now: Callable[[], float]
    ) -> None:
        self._device_id = device_id
        self._key = key
        self._nonces = nonces
        self._now = now

    def open(self, envelope: Any, kind: str) -> SignedMessage:
        """Check a message that was not seen before. Raises EnvelopeRefused."""
        message = open_envelope(envelope, kind, self._device_id, self._key, self._now())
        if self._nonces.has_nonce(message.nonce):
            raise EnvelopeRefused("the message was seen before")
        return message

    def close(self, message: SignedMessage) -> None:
        """The message has had its effect and opens no more."""
        self._nonces.see_nonce(message.nonce, message.expires_at, self._now())
