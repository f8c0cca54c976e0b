"""Signed messages to devices (Ed25519): whoever can write to a line must not be able to send work.

Celery's own ``auth`` serializer signs only the body, so a captured message could be replayed under
another task name. Here kind, device, assignment, a nonce and an expiry are signed as well.
"""

from __future__ import annotations

import base64
import json
import secrets
import time

from django.conf import settings

from fedcore.formats.key_succession import key_name
from fedcore.formats.line_bodies import Envelope
from webapp.devices.key_file import KeyFile, key_file

VALID_FOR_S = 3600


def sign(kind: str, device_id: int, assignment: str, **more: str) -> dict[str, str]:
    """Return ``{"body", "signature"}`` as docs/reference/protocol.md says."""
    current = _current()
    body = json.dumps(
        {
            "kind": kind,
            "device": device_id,
            "assignment": assignment,
            "nonce": secrets.token_hex(16),
            "expires_at": int(time.time()) + VALID_FOR_S,
            "key": key_name(current.public_bytes),
            **more,
        },
        sort_keys=True,
    )
    signature = current.key.sign(body.encode())
    return {"body": body, "signature": base64.b64encode(signature).decode()}


def signature_of(body: bytes) -> bytes:
    """64 bytes, Ed25519 by the site's key."""
    return _current().key.sign(body)


def public_key() -> str:
    """The raw public key in base64, given to a device at its enrolment."""
    return base64.b64encode(_current().public_bytes).decode()


def successions() -> list[Envelope]:
    """How the site's earlier keys led to this one, the oldest first."""
    return list(_current().successions)


def _current() -> KeyFile:
    return key_file(settings.SIGNING_KEY_FILE)
