"""Verdicts: answers of the site which the site has signed.

Something between a device and the site may answer in its place. So a refusal or a redirect counts
only with a verdict: ``Edgewise-Verdict: BODY.SIGNATURE``, both in URL-safe base64, where SIGNATURE
is Ed25519 by the key that the device learned at its enrolment. BODY is a SiteVerdict in JSON. It
repeats the ``Edgewise-Nonce`` of the request, so no earlier verdict fits.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from hashlib import sha256

import msgspec
from msgspec import Struct

NONCE_HEADER = "Edgewise-Nonce"
VERDICT_HEADER = "Edgewise-Verdict"
MAX_HEADER = 2000  # characters
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
_OWN_PATH = re.compile(r"/(?:api|ws)/")


class SiteVerdict(Struct, frozen=True, tag_field="kind", tag="verdict"):
    """What the site answers, to whom and to which request.

    ``credential``: ``digest`` of the device's token, since the site may no longer know the device.
    ``target``: ``digest`` of a redirect's Location, else ''. ``at``: seconds since 1970.
    """

    credential: str
    request: str
    nonce: str
    status: int
    target: str = ""
    at: int = 0


_DECODER = msgspec.json.Decoder(SiteVerdict)


def is_nonce(text: str) -> bool:
    return bool(_NONCE.fullmatch(text))


def digest(text: str) -> str:
    """SHA-256 in hexadecimal."""
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def request_name(method: str, path: str) -> str:
    """A request without the prefix under which a site may stand: ``GET /ws/device/``."""
    match = _OWN_PATH.search(path)
    return f"{method} {path[match.start() :] if match else path}"


def body_of(verdict: SiteVerdict) -> bytes:
    """The bytes to sign."""
    return msgspec.json.encode(verdict)


def to_header(body: bytes, signature: bytes) -> str:
    return f"{urlsafe_b64encode(body).decode()}.{urlsafe_b64encode(signature).decode()}"


def from_header(text: str) -> tuple[bytes, bytes] | None:
    """The body and its signature, both not checked yet; None for anything else."""
    body, dot, signature = text.partition(".")
    if not dot or len(text) > MAX_HEADER:
        return None
    try:
        return urlsafe_b64decode(body), urlsafe_b64decode(signature)
    except (Base64Error, ValueError):
        return None


def read_verdict(body: bytes) -> SiteVerdict | None:
    """None for a body that is no verdict."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return None
