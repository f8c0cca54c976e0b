"""A PostgreSQL database and Redis databases for one test, on servers that already run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis

CLAIM = "edgewise-test-claim"
CLAIM_S = 1800
KEYS = ("edgewise.*", ":1:*")


def named(variable: str) -> str:
    """What TEST_DATABASE_URL or TEST_REDIS_URL says; skips the test where it is not set.

    ``make test`` sets them from DATABASE_URL and REDIS_URL.
    """
    url = os.environ.get(variable, "")
    if not url:
        pytest.skip(f"{variable} names no server")
    return url


@contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """A new database beside the one named, dropped afterwards."""
    name = f"edgewise_test_{secrets.token_hex(6)}"
    try:
        server = psycopg.connect(url, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        pytest.skip(f"PostgreSQL does not let this user in: {error}")
    with server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def empty_redis(url: str) -> Iterator[str]:
    """A database number that nobody uses, claimed meanwhile; only our keys are removed."""
    for number in range(15, 0, -1):
        address = urlunsplit(urlsplit(url)._replace(path=f"/{number}"))
        client = redis.Redis.from_url(address, socket_timeout=5)
        try:
            free = client.dbsize() == 0 and client.set(CLAIM, "1", nx=True, ex=CLAIM_S)
        except redis.ConnectionError as error:
            pytest.skip(f"Redis does not answer: {error}")
        if free:
            break
        client.close()
    else:
        pytest.skip("every database of this Redis is in use")
    try:
        yield address
    finally:
        for pattern in KEYS:
            for key in client.scan_iter(match=pattern, count=500):
                client.delete(key)
        client.delete(CLAIM)
        client.close()
