"""What the agent's two processes tell each other: activity, cancellations, seen messages, notes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from workers.agent.state.database import StateDatabase

CANCELLED_KEPT_S = 86_400


@dataclass(frozen=True)
class Activity:
    """What the training process ``pid`` is busy with."""

    assignment: str
    phase: str
    step: int
    steps_total: int
    pid: int

    def to_json(self) -> dict[str, Any]:
        return {
            "assignment": self.assignment,
            "phase": self.phase,
            "step": self.step,
            "steps_total": self.steps_total,
        }


IDLE: dict[str, Any] = {"assignment": None, "phase": "", "step": 0, "steps_total": 0}


@dataclass(frozen=True)
class Cancelled:
    """``age_s``: seconds since this device heard of it."""

    reason: str
    age_s: float


class SharedState:
    def __init__(self, store: StateDatabase) -> None:
        self._store = store

    def wipe(self) -> None:
        """At the start of an agent: what a former one did or was told is over."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM activity")
            db.execute("DELETE FROM cancelled")
            db.execute("DELETE FROM note WHERE key IN ('stopping', 'flush', 'rtt_s')")

    def set_activity(self, activity: Activity) -> None:
        with self._store.transaction() as db:
            db.execute(
                "REPLACE INTO activity VALUES (1, ?, ?, ?, ?, ?)",
                (
                    activity.assignment,
                    activity.phase,
                    activity.step,
                    activity.steps_total,
                    activity.pid,
                ),
            )

    def activity(self) -> Activity | None:
        rows = self._store.rows("SELECT assignment, phase, step, steps_total, pid FROM activity")
        return Activity(*rows[0]) if rows else None  # type: ignore[arg-type]

    def end_activity(self, assignment: str) -> bool:
        """Clear it if it still is about ``assignment``, and ask for a report at once."""
        with self._store.transaction() as db:
            query = "DELETE FROM activity WHERE assignment = ?"
            ended = db.execute(query, (assignment,)).rowcount
            db.execute("REPLACE INTO note VALUES ('flush', ?)", (repr(time.monotonic()),))
        return bool(ended)

    def cancel(self, assignment: str, reason: str) -> bool:
        """Mark as cancelled; False where it already was."""
        now = time.monotonic()
        with self._store.transaction() as db:
            db.execute("DELETE FROM cancelled WHERE at < ?", (now - CANCELLED_KEPT_S,))
            values = (assignment, reason, now)
            return bool(
                db.execute("INSERT OR IGNORE INTO cancelled VALUES (?, ?, ?)", values).rowcount
            )

    def cancelled(self, assignment: str) -> Cancelled | None:
        rows = self._store.rows("SELECT reason, at FROM cancelled WHERE assignment = ?", assignment)
        if not rows:
            return None
        return Cancelled(str(rows[0][0]), time.monotonic() - float(str(rows[0][1])))

    def see_nonce(self, nonce: str, expires_at: float, now: float) -> bool:
        """Remember a message until it expires; False where it was seen before."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM nonce WHERE expires_at < ?", (now - 60,))
            query = "INSERT OR IGNORE INTO nonce VALUES (?, ?)"
            return bool(db.execute(query, (nonce, expires_at)).rowcount)

    def note(self, key: str, value: str) -> None:
        with self._store.transaction() as db:
            db.execute("REPLACE INTO note VALUES (?, ?)", (key, value))

    def noted(self, key: str) -> str:
        """The note, or '' where there is none."""
        rows = self._store.rows("SELECT value FROM note WHERE key = ?", key)
        return str(rows[0][0]) if rows else ""
