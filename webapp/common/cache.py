"""A cache that tolerates an unreachable Redis: every lookup is then a miss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

log = logging.getLogger(__name__)


def _tolerant(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    method = getattr(RedisCache, name)

    @wraps(method)
    def call(self: RedisCache, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (RedisError, OSError) as error:
            log.warning(
                "the cache cannot be reached, %s returns as if it were empty: %s", name, error
            )
            return fallback(*args, **kwargs)

    return call


class TolerantRedisCache(RedisCache):
    """Django's Redis cache without its connection errors."""

    get = _tolerant("get", lambda _key, default=None, **_rest: default)
    set = _tolerant("set", lambda *_args, **_rest: None)
    add = _tolerant("add", lambda *_args, **_rest: True)
    touch = _tolerant("touch", lambda *_args, **_rest: False)
    delete = _tolerant("delete", lambda *_args, **_rest: False)
    get_many = _tolerant("get_many", lambda *_args, **_rest: {})
    set_many = _tolerant("set_many", lambda data, *_args, **_rest: list(data))
    has_key = _tolerant("has_key", lambda *_args, **_rest: False)
