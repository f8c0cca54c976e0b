"""A cache that tolerates an unreachable Redis: every lookup is then a miss."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

TIMEOUTS = {"socket_connect_timeout": 3, "socket_timeout": 3}

log = logging.getLogger(__name__)

PAUSE_S = 5.0  # after an error nobody waits for Redis


def _tolerant(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    method = getattr(RedisCache, name)

    @wraps(method)
    def call(self: RedisCache, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() < TolerantRedisCache.next_try_at:
            return fallback(*args, **kwargs)
        try:
            return method(self, *args, **kwargs)
        except (RedisError, OSError) as error:
            TolerantRedisCache.next_try_at = time.monotonic() + PAUSE_S
            log.warning(
                "the cache cannot be reached, %s returns as if it were empty: %s", name, error
            )
            return fallback(*args, **kwargs)

    return call


class TolerantRedisCache(RedisCache):
    """Django's Redis cache without its connection errors. No page waits long for it."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        params["OPTIONS"] = {**TIMEOUTS, **params.get("OPTIONS", {})}
        super().__init__(server, params)

    next_try_at = 0.0  # monotonic seconds, for all threads of the process

    get = _tolerant("get", lambda _key, default=None, **_rest: default)
    set = _tolerant("set", lambda *_args, **_rest: None)
    add = _tolerant("add", lambda *_args, **_rest: True)
    touch = _tolerant("touch", lambda *_args, **_rest: False)
    delete = _tolerant("delete", lambda *_args, **_rest: False)
    get_many = _tolerant("get_many", lambda *_args, **_rest: {})
    set_many = _tolerant("set_many", lambda data, *_args, **_rest: list(data))
    has_key = _tolerant("has_key", lambda *_args, **_rest: False)

    def is_reachable(self) -> bool:
        try:
            super().has_key("reachable")
        except (RedisError, OSError):
            return False
        return True
