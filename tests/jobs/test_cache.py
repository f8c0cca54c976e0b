"""A broker that refuses or does not answer: the cache is empty, soon, and says so."""

from __future__ import annotations

import socket
import time

import pytest

from webapp.common import cache
from webapp.common.cache import TolerantRedisCache


def test_refused_connection() -> None:
    absent = TolerantRedisCache("redis://127.0.0.1:1/0", {})
    assert not absent.is_reachable()
    assert absent.get("key", "default") == "default"


def test_broker_that_accepts_and_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "TIMEOUTS", dict.fromkeys(cache.TIMEOUTS, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = TolerantRedisCache(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", {})
        began = time.monotonic()
        assert not silent.is_reachable()
        assert time.monotonic() - began < 10.0
