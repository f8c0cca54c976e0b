"""Checks the server's signed messages: only these may start or stop work on this device."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from workers.agent.agent_errors import EnvelopeRefused

MAX_BODY = 4096


@dataclass(frozen=True)
class Message:
    """A verified message. ``expires_at`` is in seconds since 1970."""

    kind: str
    assignment: str
    nonce: str
    expires_at: float
    reason: str = ""

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Message:
        assignment, nonce = body.get("assignment"), body.get("nonce")
        expires_at = body.get("expires_at")
        strings = isinstance(assignment, str) and isinstance(nonce, str) and 8 <= len(nonce) <= 200
        if not strings or isinstance(expires_at, bool) or not isinstance(expires_at, (int, float)):
            raise EnvelopeRefused("the message lacks its assignment, nonce or expiry")
        reason = str(body.get("reason") or "")
        return cls(str(body["kind"]), str(assignment), str(nonce), float(expires_at), reason)


def open_envelope(
    envelope: Any, kind: str, device_id: int, public_key: bytes, now: float
) -> Message:
    """Check signature, kind, device and expiry, but not the nonce. Raises EnvelopeRefused."""
    if not isinstance(envelope, Mapping):
        raise EnvelopeRefused("the message is not an envelope")
    text, signature = envelope.get("body"), envelope.get("signature")
    if not isinstance(text, str) or not isinstance(signature, str) or len(text) > MAX_BODY:
        raise EnvelopeRefused("the message is not an envelope")
    try:
        raw = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(raw, text.encode())
        body = json.loads(text)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise EnvelopeRefused("the signature is not the server's") from error
    if not isinstance(body, dict):
        raise EnvelopeRefused("the message is not a JSON object")
    if body.get("kind") != kind:
        raise EnvelopeRefused(f"the message is of kind {body.get('kind')!r}, not {kind!r}")
    if body.get("device") != device_id:
        raise EnvelopeRefused(f"the message is for device {body.get('device')!r}")
    message = Message.parse(body)
    if message.expires_at < now:
        raise EnvelopeRefused(f"the message expired {now - message.expires_at:.0f} s ago")
    return message


class Gatekeeper:
    """Opens the envelopes meant for one device, each once.

    ``see_nonce(nonce, expires_at, now)`` remembers a nonce; it returns False for one seen before.
    """

    def __init__(
        self,
        device_id: int,
        public_key: bytes,
        see_nonce: Callable[[str, float, float], bool],
        now: Callable[[], float],
    ) -> None:
        self._device_id = device_id
        self._public_key = public_key
        self._see_nonce = see_nonce
        self._now = now

    def admit(self, envelope: Any, kind: str) -> Message:
        now = self._now()
        message = open_envelope(envelope, kind, self._device_id, self._public_key, now)
        if not self._see_nonce(message.nonce, message.expires_at, now):
            raise EnvelopeRefused("the message was seen before")
        return message
