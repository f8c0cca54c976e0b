"""A PostgreSQL database for one run, on the server that TEST_DATABASE_URL names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg

VARIABLE = "TEST_DATABASE_URL"
LOCAL = ("localhost", "127.0.0.1", "::1", None)


@contextmanager
def site_database() -> Iterator[dict[str, str]]:
    """The setting that names the database; nothing where the site is to use SQLite."""
    url = os.environ.get(VARIABLE, "")
    if not url:
        yield {}
        return
    name = f"edgewise_bench_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield {"DATABASE_URL": urlunsplit(urlsplit(url)._replace(path=f"/{name}"))}
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def backend_pids(url: str) -> dict[str, int]:
    """The server's processes that serve this database; none where it runs elsewhere."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgres") or parts.hostname not in LOCAL:
        return {}
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as server:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        rows = server.execute(f"{query} AND pid <> pg_backend_pid()").fetchall()
    return {f"database {pid}": pid for (pid,) in rows}
