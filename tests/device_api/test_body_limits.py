"""Limits of request bodies, and a full disk while one is written."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import Any

import pytest

from tests import asgi

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]
MEGABYTE = 2**20
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/enrol/"),
        ("POST", "/api/v1/device/measurements/"),
        ("POST", "/login/"),
        ("GET", "/api/v1/jobs/"),
        ("PUT", f"/api/v1/device/assignments/{'0' * 36}/update/"),
    ],
)
def test_announced_large_body_is_413(method: str, path: str) -> None:
    headers = {**JSON, "Content-Length": str(100 * MEGABYTE)}
    exchange = asgi.call(method, path, headers, [b""] * 2)
    assert exchange.taken == 0
    assert exchange.answer.status_code == exchange.answer.json()["status"] == 413
    assert "bytes expected here" in exchange.answer.json()["detail"]


def test_unannounced_large_body_is_413() -> None:
    exchange = asgi.call("POST", "/api/v1/enrol/", JSON, [bytes(MEGABYTE)] * 100)
    assert exchange.answer.status_code == 413
    assert exchange.taken == 11


def test_full_disk_during_body_is_507(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(tempfile.SpooledTemporaryFile):  # type: ignore[type-arg]
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", Full)
    answer = asgi.call("POST", "/api/v1/enrol/", JSON, b"{}").answer
    assert answer.status_code == 507
    assert "the server's disk is full" in answer.json()["detail"]


def test_ordinary_request_passes() -> None:
    parts = [b'{"token": "x", ', b'"name": "pi"}']
    headers = {**JSON, "Content-Length": str(len(b"".join(parts)))}
    answer = asgi.call("POST", "/api/v1/enrol/", headers, parts).answer
    assert answer.status_code == 403
    assert "unknown" in answer.json()["detail"]
