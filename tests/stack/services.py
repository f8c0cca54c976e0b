"""A PostgreSQL database and Redis databases for one test, on servers that already run."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis

from tests.compose import ROOT
from workers.stack.processes import Processes, free_port, wait_for_port

CLAIM = "edgewise-test-claim"
CLAIM_S = 1800
KEYS = ("edgewise.*", ":1:*", "dev.*")


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


@contextmanager
def broker_with_tls(processes: Processes, folder: Path) -> Iterator[dict[str, str]]:
    """The devices' broker as production starts it; the settings that name it."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server to start the devices' broker with")
    certs, port, password = folder / "certs", free_port(), secrets.token_hex(32)
    subprocess.run(
        [ROOT / "deploy" / "make-certs.sh", "localhost"],
        env={**os.environ, "CERTS": str(certs)},
        check=True,
        capture_output=True,
    )
    env = {
        **os.environ,
        "BROKER_PASSWORD": password,
        "BROKER_PORT": str(port),
        "BROKER_BIND": "127.0.0.1",
        "BROKER_CERTS": str(certs),
        "BROKER_DIR": str(folder / "broker"),
    }
    script = str(ROOT / "deploy" / "broker.sh")
    processes.start("redis-devices", ["sh", script, "devices"], env)
    wait_for_port(processes, "redis-devices", port, 10)
    subprocess.run(["sh", script, "ping", "devices"], env=env, check=True)
    yield {
        "DEVICE_REDIS_URL": f"rediss://edgewise:{password}@localhost:{port}/0",
        "DEVICE_REDIS_CA_FILE": str(certs / "ca.crt"),
        "DEVICE_REDIS_PUBLIC_URL": f"rediss://localhost:{port}/0",
    }
