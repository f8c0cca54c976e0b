"""State that the agent's processes share: activity, cancellations, seen messages, notes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from workers.agent.state.database import StateDatabase

CANCELLATION_KEPT_S = 86_400
ACCEPTING = "accepting"  # the phase before the server has agreed; it is not told of it
CONTACT_NOTE = "last_contact"
AT_ONCE_NOTE = "examples_at_once"  # the assignment and a number
LINE_NOTE = "line"  # JSON: connected_at ('' while there is no line) and problem


@dataclass(frozen=True)
class Activity:
    """The assignment that the training process ``pid`` is working on."""

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
class Cancellation:
    """``age_s``: seconds since this device received it."""

    reason: str
    age_s: float


class SharedState:
    def __init__(self, database: StateDatabase) -> None:
        self._database = database
        self.is_wiped = False

    def wipe(self) -> None:
        """At the start of an agent: drop the activity and cancellations of the one before."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM activity")
            db.execute("DELETE FROM cancelled")
            db.execute("DELETE FROM note WHERE key IN ('stopping', 'flush', 'rtt_s', 'line')")
        self.is_wiped = True

    def set_activity(self, activity: Activity) -> None:
        with self._database.transaction() as db:
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
        rows = self._database.rows("SELECT assignment, phase, step, steps_total, pid FROM activity")
        return Activity(*rows[0]) if rows else None

    def end_activity(self, assignment: str) -> bool:
        """Clear the activity if it is still about ``assignment``; request a report at once."""
        with self._database.transaction() as db:
            query = "DELETE FROM activity WHERE assignment = ?"
            ended = db.execute(query, (assignment,)).rowcount
            db.execute("REPLACE INTO note VALUES ('flush', ?)", (repr(time.monotonic()),))
        return bool(ended)

    def cancel(self, assignment: str, reason: str) -> bool:
        """Mark as cancelled; False where it already was."""
        now = time.monotonic()
        with self._database.transaction() as db:
            db.execute("DELETE FROM cancelled WHERE at < ?", (now - CANCELLATION_KEPT_S,))
            values = (assignment, reason, now)
            return bool(
                db.execute("INSERT OR IGNORE INTO cancelled VALUES (?, ?, ?)", values).rowcount
            )

    def cancelled(self, assignment: str) -> Cancellation | None:
        query = "SELECT reason, at FROM cancelled WHERE assignment = ?"
        rows = self._database.rows(query, assignment)
        if not rows:
            return None
        return Cancellation(str(rows[0][0]), time.monotonic() - float(rows[0][1]))

    def has_nonce(self, nonce: str) -> bool:
        """Whether a message with it was seen and has not long expired."""
        return bool(self._database.rows("SELECT 1 FROM nonce WHERE nonce = ?", nonce))

    def see_nonce(self, nonce: str, expires_at: float, now: float) -> bool:
        """Remember a message until it expires; False where it was seen before."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM nonce WHERE expires_at < ?", (now - 60,))
            query = "INSERT OR IGNORE INTO nonce VALUES (?, ?)"
            return bool(db.execute(query, (nonce, expires_at)).rowcount)

    def note_examples_at_once(self, assignment: str, examples: int) -> None:
        self.write_note(AT_ONCE_NOTE, f"{assignment} {examples}")

    def examples_at_once(self, assignment: str) -> int:
        """The most examples that this assignment trains at a time; 0 where it is not known."""
        name, _, examples = self.read_note(AT_ONCE_NOTE).partition(" ")
        return int(examples) if name == assignment else 0

    def write_note(self, key: str, value: str) -> None:
        with self._database.transaction() as db:
            db.execute("REPLACE INTO note VALUES (?, ?)", (key, value))

    def read_note(self, key: str) -> str:
        """The note, or '' where there is none."""
        rows = self._database.rows("SELECT value FROM note WHERE key = ?", key)
        return str(rows[0][0]) if rows else ""
