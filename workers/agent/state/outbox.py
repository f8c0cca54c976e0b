"""Samples waiting for the server's acknowledgement. A sequence number is never used twice."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.agent.state.database import StateDatabase

MAX_SAMPLES = 100_000  # about a day of training without a server, some 40 MB

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutboxSample:
    seq: int
    at: str
    assignment: str | None
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "at": self.at,
            "assignment": self.assignment,
            "values": dict(self.values),
        }


class Outbox:
    def __init__(self, database: StateDatabase, max_samples: int = MAX_SAMPLES) -> None:
        self._database = database
        self._max_samples = max_samples

    def add(self, at: str, assignment: str | None, values: Mapping[str, float]) -> int:
        """Store a sample and return its number; values that are not finite are left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        with self._database.transaction() as db:
            cursor = db.execute(
                "INSERT INTO sample (at, assignment, body) VALUES (?, ?, ?)",
                (at, assignment, json.dumps(finite)),
            )
            seq = int(cursor.lastrowid or 0)
            (oldest,) = db.execute("SELECT min(seq) FROM sample").fetchone()
            if seq - oldest >= self._max_samples:
                until = oldest + max(1, self._max_samples // 10)
                dropped = db.execute("DELETE FROM sample WHERE seq < ?", (until,)).rowcount
                log.warning("the outbox is full: dropped the %d oldest samples", dropped)
        return seq

    def oldest(self, limit: int) -> list[OutboxSample]:
        rows = self._database.rows(
            "SELECT seq, at, assignment, body FROM sample ORDER BY seq LIMIT ?", limit
        )
        return [
            OutboxSample(seq, at, assignment, json.loads(body))
            for seq, at, assignment, body in rows
        ]

    def acknowledge(self, seq: int) -> None:
        """Delete every sample up to ``seq``."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM sample WHERE seq <= ?", (seq,))

    def drop(self, seq: int) -> None:
        with self._database.transaction() as db:
            db.execute("DELETE FROM sample WHERE seq = ?", (seq,))

    def clear(self) -> None:
        """Delete all samples (the device has joined another server); numbering continues."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM sample")

    def continue_from(self, next_seq: int) -> None:
        """Make the next number at least ``next_seq``."""
        with self._database.transaction() as db:
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'sample'").fetchone()
            if row is None:
                db.execute("INSERT INTO sqlite_sequence VALUES ('sample', ?)", (next_seq - 1,))
            elif row[0] < next_seq - 1:
                db.execute(
                    "UPDATE sqlite_sequence SET seq = ? WHERE name = 'sample'", (next_seq - 1,)
                )

    def __len__(self) -> int:
        ((count,),) = self._database.rows("SELECT count(*) FROM sample")
        return int(count)
