"""The file of the site's signing key: the key in PEM, and how earlier keys led to it.

It is one file, so that a backup has all of it and a replacement is one rename. Every process looks
at the file's time stamp before it signs, so none needs a restart.
"""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.formats.key_succession import Succession, body_of
from fedcore.formats.line_bodies import Envelope

SUCCESSION = b"Succession: "


@dataclass(frozen=True)
class KeyFile:
    """``successions``: signed by the key before, the oldest first."""

    key: Ed25519PrivateKey
    successions: tuple[Envelope, ...] = ()

    @property
    def public_bytes(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def to_bytes(self) -> bytes:
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        lines = (SUCCESSION + msgspec.json.encode(item) + b"\n" for item in self.successions)
        return pem + b"".join(lines)

    def succeeded_by(self, key: Ed25519PrivateKey) -> KeyFile:
        """The file of ``key``, for which this one vouches."""
        new, old = (
            base64.b64encode(item.public_key().public_bytes_raw()).decode()
            for item in (key, self.key)
        )
        body = body_of(Succession(replaces=old, public_key=new, at=int(time.time())))
        signature = base64.b64encode(self.key.sign(body)).decode()
        return KeyFile(key, (*self.successions, Envelope(body.decode(), signature)))


def key_file(path: Path) -> KeyFile:
    """The current key, created where there is none. Raises TypeError for another kind of key."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _write_beside(path, KeyFile(Ed25519PrivateKey.generate()))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # another process was first; its key is used
        finally:
            temporary.unlink()
    return _read(path, path.stat().st_mtime_ns)


def replace_key(path: Path) -> KeyFile:
    """Make a new key, for which the old one vouches. Of two calls at once, one waits."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        new = key_file(path).succeeded_by(Ed25519PrivateKey.generate())
        _write_beside(path, new).replace(path)
    finally:
        os.close(handle)
    return new


@lru_cache(maxsize=4)
def _read(path: Path, _modified_ns: int) -> KeyFile:
    data = path.read_bytes()
    key = serialization.load_pem_private_key(data, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{path} is no Ed25519 key; move it away to have a new one created")
    lines = [line for line in data.splitlines() if line.startswith(SUCCESSION)]
    decode = msgspec.json.Decoder(Envelope).decode
    return KeyFile(key, tuple(decode(line.removeprefix(SUCCESSION)) for line in lines))


def _write_beside(path: Path, content: KeyFile) -> Path:
    """A complete file next to ``path`` that only the owner can read."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content.to_bytes())
        out.flush()
        os.fsync(out.fileno())
    return temporary
