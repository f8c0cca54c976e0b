"""The agent's SQLite file, shared by its processes: samples, activity, cancellations, nonces.

A SQLite connection must not survive a fork, and Celery's pool forks at any time. Each process has
at most one connection; a fork takes its lock and closes it first.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS sample (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, assignment TEXT, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS activity (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), assignment TEXT NOT NULL,
    phase TEXT NOT NULL, step INTEGER NOT NULL, steps_total INTEGER NOT NULL, pid INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cancelled (
    assignment TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS nonce (nonce TEXT PRIMARY KEY, expires_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS note (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

log = logging.getLogger(__name__)


class StateDatabase:
    """``transaction()`` yields the connection; all of the block is written, or nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        os.register_at_fork(
            before=self._lock_and_close,
            after_in_parent=self._lock.release,
            after_in_child=self._lock.release,
        )

    def _lock_and_close(self) -> None:
        self._lock.acquire()
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read without the writer's lock."""
        with self._lock:
            return self._open().execute(query, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = _connect(self.path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                # A power cut can damage the file; sample numbers continue from the server's count.
                damaged = self.path.with_name(f"{self.path.name}.broken-{int(time.time())}")
                log.error("%s is damaged; moved it to %s and started anew", self.path, damaged.name)
                self.path.replace(damaged)
                for suffix in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                self._connection = _connect(self.path)
        return self._connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False, isolation_level=None)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
