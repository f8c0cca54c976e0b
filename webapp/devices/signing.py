"""Signed messages to devices (Ed25519): a stolen broker password must not suffice to send work.

Celery's own ``auth`` serializer signs only the body, so a captured message could be replayed under
another task name. Here kind, device, assignment, a nonce and an expiry are signed as well.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

VALID_FOR_S = 3600


def sign(kind: str, device_id: int, assignment: str, **more: str) -> dict[str, str]:
    """Return ``{"body", "signature"}`` as docs/reference/protocol.md says."""
    body = json.dumps(
        {
            "kind": kind,
            "device": device_id,
            "assignment": assignment,
            "nonce": secrets.token_hex(16),
            "expires_at": int(time.time()) + VALID_FOR_S,
            **more,
        },
        sort_keys=True,
    )
    signature = _key(settings.SIGNING_KEY_FILE).sign(body.encode())
    return {"body": body, "signature": base64.b64encode(signature).decode()}


def public_key() -> str:
    """The raw public key in base64, given to a device at its enrolment."""
    raw = _key(settings.SIGNING_KEY_FILE).public_key().public_bytes_raw()
    return base64.b64encode(raw).decode()


@lru_cache(maxsize=4)
def _key(path: Path) -> Ed25519PrivateKey:
    if not path.exists():
        _create(path)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{path} is no Ed25519 key; move it away to have a new one created")
    return key


def _create(path: Path) -> None:
    """Write a new key that only the owner can read; the first of several processes wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(pem)
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was first; its key is used
    finally:
        temporary.unlink()
