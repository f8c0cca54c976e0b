"""Statements by which the site replaces its signing key: the old key vouches for the new one.

A device that knows an older key follows them one after the other (``HelloAnswer.successions``).
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec import Struct


class Succession(Struct, frozen=True, tag_field="kind", tag="key"):
    """Signed by ``replaces``. Public keys are 32 bytes in base64. ``at``: seconds since 1970."""

    replaces: str
    public_key: str
    at: int


_DECODER = msgspec.json.Decoder(Succession)


def key_name(public_key: bytes) -> str:
    """A short name, by which a signed message says which key it needs."""
    return sha256(public_key).hexdigest()[:16]


def body_of(succession: Succession) -> bytes:
    """The bytes to sign."""
    return msgspec.json.encode(succession)


def read_succession(body: bytes) -> Succession | None:
    """None for a body that is none."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return None
