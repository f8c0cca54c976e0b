"""Read a job's state from the database, because the web process may have been killed."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from fedcore.rounds.job_lifecycle import OVER, JobPhase
from fedcore.rounds.types import ENDED, RoundPhase

BUSY_S = 30.0


@dataclass(frozen=True)
class State:
    """Phases of a job and of its newest round. ``number`` is -1 before the first round."""

    job: JobPhase
    number: int
    attempt: int
    round: RoundPhase | None

    @property
    def is_over(self) -> bool:
        return self.job in OVER

    @property
    def moment(self) -> RoundPhase:
        open_ = self.round is not None and self.round not in ENDED
        return self.round if open_ and self.round is not None else RoundPhase.PLANNED


class JobDatabase:
    """``url`` as DATABASE_URL has it."""

    def __init__(self, url: str) -> None:
        self._sqlite = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else None
        self._url = url

    def state(self, job: str) -> State:
        rows = self._rows(
            "SELECT j.phase, r.number, r.attempt, r.phase FROM jobs_job j "
            "LEFT JOIN jobs_round r ON r.job_id = j.id WHERE j.id = {} "
            "ORDER BY r.number DESC, r.attempt DESC LIMIT 1",
            job,
        )
        phase, number, attempt, round_ = rows[0]
        known = RoundPhase(round_) if round_ is not None else None
        return State(JobPhase(phase), -1 if number is None else number, attempt or 0, known)

    def globals(self, job: str) -> list[tuple[int, str]]:
        """(number, SHA-256 of the global weights) of every closed round."""
        return self._rows(
            "SELECT number, coalesce(global_artefact_id, base_artefact_id) FROM jobs_round "
            "WHERE phase = 'closed' AND job_id = {} ORDER BY number",
            job,
        )

    def log(self, job: str) -> list[str]:
        rows = self._rows("SELECT text FROM jobs_event WHERE job_id = {} ORDER BY seq", job)
        return [str(text) for (text,) in rows]

    def _rows(self, query: str, job: str) -> list[tuple[Any, ...]]:
        """Open a new connection for each query. The last one may have died with its server."""
        if self._sqlite is None:
            with psycopg.connect(self._url, connect_timeout=5) as server:
                return server.execute(query.format("%s"), (UUID(job),)).fetchall()
        place = f"file:{self._sqlite}?mode=ro"
        connection = sqlite3.connect(place, uri=True, timeout=BUSY_S)
        try:
            return connection.execute(query.format("?"), (UUID(job).hex,)).fetchall()
        finally:
            connection.close()
