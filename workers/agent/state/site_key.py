"""The site's public key, by which this device knows the site's words."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedcore.formats.key_succession import key_name, read_succession
from fedcore.formats.line_bodies import Envelope
from workers.agent.state import credentials

KEY_BYTES = 32


class SiteKey:
    """32 bytes, from the credential. Another process of the agent may replace it there."""

    def __init__(self, public_key: bytes, state_dir: Path | None = None) -> None:
        self.public_key = public_key
        self._state_dir = state_dir

    def has_signed(self, body: bytes, signature: bytes) -> bool:
        """Whether the site signed ``body``; the stored key is read again where it seems not."""
        if _fits(self.public_key, body, signature):
            return True
        stored = credentials.load(self._state_dir) if self._state_dir else None
        if stored is None or stored.public_key == self.public_key:
            return False
        self.public_key = stored.public_key
        return _fits(self.public_key, body, signature)

    def follow(self, successions: Sequence[Envelope]) -> bool:
        """Believe the site's newer keys, each of which the one before has signed.

        Returns whether the key is another one now; it is stored. Raises OSError.
        """
        key = self.public_key
        for statement in successions:
            key = _successor(key, statement) or key
        if key == self.public_key:
            return False
        if self._state_dir:
            text = base64.b64encode(key).decode()
            credentials.change(self._state_dir, signing_public_key=text)
        self.public_key = key
        return True

    @property
    def name(self) -> str:
        return key_name(self.public_key)


def _successor(key: bytes, statement: Envelope) -> bytes | None:
    """The key that replaces ``key``; None where the statement is about another one."""
    body = statement.body.encode()
    succession = read_succession(body)
    try:
        if succession is None or base64.b64decode(succession.replaces) != key:
            return None
        new, signature = (
            base64.b64decode(text) for text in (succession.public_key, statement.signature)
        )
    except binascii.Error:
        return None
    return new if len(new) == KEY_BYTES and _fits(key, body, signature) else None


def _fits(key: bytes, body: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, body)
    except InvalidSignature:
        return False
    return True
