"""Signed messages and their key."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from webapp.devices import key_file as key_files
from webapp.devices import signing


@pytest.fixture
def key_file(tmp_path: Path, settings: Any) -> Path:
    settings.SIGNING_KEY_FILE = tmp_path / "keys" / "signing-key.pem"
    return settings.SIGNING_KEY_FILE


def verify(signed: dict[str, str], public: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
    key.verify(base64.b64decode(signed["signature"]), signed["body"].encode())


def test_envelope_verifies(key_file: Path) -> None:
    signed = signing.sign("cancel", 7, "an-assignment", reason="the job was paused")
    assert set(signed) == {"body", "signature"}
    verify(signed, signing.public_key())
    body = json.loads(signed["body"])
    assert (body["kind"], body["device"], body["assignment"]) == ("cancel", 7, "an-assignment")
    assert body["reason"] == "the job was paused"
    assert 0 < body["expires_at"] - time.time() <= signing.VALID_FOR_S


def test_changed_envelope_does_not(key_file: Path, tmp_path: Path, settings: Any) -> None:
    signed = signing.sign("work", 7, "an-assignment")
    public = signing.public_key()
    forged = {**signed, "body": signed["body"].replace('"device": 7', '"device": 8')}
    assert forged != signed
    with pytest.raises(InvalidSignature):
        verify(forged, public)
    settings.SIGNING_KEY_FILE = tmp_path / "another.pem"
    with pytest.raises(InvalidSignature):
        verify(signed, signing.public_key())


def test_no_two_envelopes_are_alike(key_file: Path) -> None:
    bodies = [json.loads(signing.sign("work", 7, "same")["body"]) for _ in range(50)]
    assert len({body["nonce"] for body in bodies}) == 50


def test_key_is_for_its_owner_alone_and_stays(key_file: Path) -> None:
    public = signing.public_key()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == ["signing-key.pem"]
    key_files._read.cache_clear()
    assert signing.public_key() == public


def test_threads_that_need_the_key_at_once(key_file: Path) -> None:
    barrier = threading.Barrier(8)

    def first_use(_: int) -> str:
        barrier.wait()
        key_files._read.cache_clear()
        return signing.public_key()

    with ThreadPoolExecutor(8) as pool:
        result = set(pool.map(first_use, range(8)))
    assert len(result) == 1
    assert [path.name for path in key_file.parent.iterdir()] == ["signing-key.pem"]


CODE = """
import sys, django
from pathlib import Path
from django.conf import settings
settings.configure(SIGNING_KEY_FILE=Path(sys.argv[1]))
from webapp.devices.signing import public_key
sys.stdin.readline()
print(public_key())
"""


def test_processes_that_need_the_key_at_once(key_file: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(key_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    time.sleep(0.5)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    result = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(result) == 1
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_file_that_is_no_such_key(key_file: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key_file.parent.mkdir()
    pem = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_file.write_bytes(pem)
    with pytest.raises(TypeError, match="is no Ed25519 key; move it away"):
        signing.public_key()
