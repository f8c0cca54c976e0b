"""The cache while Redis is away or does not answer."""

from __future__ import annotations

import socket
import time

import pytest

from webapp.common import cache as cache_module
from webapp.common.cache import TolerantRedisCache


def cache_at(port: int) -> TolerantRedisCache:
    """The site's cache, at a Redis on this port."""
    return TolerantRedisCache(f"redis://:secret@127.0.0.1:{port}/0", {})


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TolerantRedisCache, "next_try_at", 0.0)


def test_silent_redis_is_waited_for_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = cache_at(silent.getsockname()[1])
        begin = time.monotonic()
        answers = [cache.get_or_set("key", lambda: 7) for _ in range(50)]
        assert cache.add("key", 1)
        assert cache.get_many(["key"]) == {}
    assert answers == [7] * 50
    assert time.monotonic() - begin < 2 * cache_module.TIMEOUTS["socket_timeout"]


def test_redis_is_asked_again_after_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "PAUSE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as closing:
        cache = cache_at(closing.getsockname()[1])
        closing.settimeout(0.1)
        for _ in range(2):
            assert cache.get("key") is None
            closing.accept()[0].close()
            assert cache.get("key") is None
            with pytest.raises(TimeoutError):
                closing.accept()
            time.sleep(0.2)
