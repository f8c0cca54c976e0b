"""Which artefacts a job still needs, and why: a pure decision over what its rows say.

Whatever a job that is not over could read again is kept under any policy: the model it stands at,
the base, state, step and updates of every round with something open, the newest state of the
strategy. The policy decides on the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fedcore.rounds.job_lifecycle import JobPhase


@dataclass(frozen=True)
class RetentionPolicy:
    """``globals_last`` models of the newest rounds stay, at least 1; updates stay ``updates_s``
    seconds after their round ended."""

    globals_last: int = 3
    updates_s: float = 0.0

    def __post_init__(self) -> None:
        if self.globals_last < 1:
            raise ValueError(
                "keeping no model at all would delete the base that a running job trains from; "
                "keep at least 1"
            )
        if self.updates_s < 0:
            raise ValueError("updates cannot be kept for less than no time; give 0 or more")


@dataclass(frozen=True)
class RoundFacts:
    """One round. ``open`` says that something of it goes on; ``score`` is its ROUGE-L, None
    unknown; ``ended_s`` the seconds since it ended. Artefacts are named by SHA-256, '' for none."""

    number: int
    open: bool
    base: str = ""
    model: str = ""
    state: str = ""
    step: str = ""
    score: float | None = None
    pinned: bool = False
    ended_s: float = 0.0
    updates: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobFacts:
    """One job; ``rounds`` in the order they were started."""

    phase: JobPhase
    model: str = ""
    merged: str = ""
    rounds: Sequence[RoundFacts] = field(default_factory=tuple)

    @property
    def goes_on(self) -> bool:
        """Whether it may still run: a failed job can be retried, a cancelled one cannot."""
        return self.phase not in (JobPhase.COMPLETED, JobPhase.CANCELLED)


def required_artefacts(job: JobFacts, policy: RetentionPolicy) -> dict[str, str]:
    """SHA-256 of every artefact that must stay -> why. The first reason found counts."""
    found: dict[str, str] = {}
    for sha256, why in _reasons(job, policy):
        if sha256:
            found.setdefault(sha256, why)
    return found


def _reasons(job: JobFacts, policy: RetentionPolicy) -> Iterator[tuple[str, str]]:
    yield job.model, "the job's model"
    yield job.merged, "the job's merged model"
    for row in job.rounds:
        if row.open and job.goes_on:
            yield from _all_of(row, f"round {row.number} goes on")
        if row.pinned:
            yield row.model, f"round {row.number} is pinned"
        if row.ended_s < policy.updates_s:
            yield from ((update, "its round has just ended") for update in row.updates)
    made = [row for row in job.rounds if row.model]
    for row in made[-policy.globals_last :]:
        yield row.model, f"one of the last {policy.globals_last} models"
        yield row.step, f"one of the last {policy.globals_last} models"
    yield from _best(made)
    if job.goes_on:
        states = [row.state for row in job.rounds if row.state]
        yield from ((state, "the strategy goes on from it") for state in states[-1:])


def _all_of(row: RoundFacts, why: str) -> Iterable[tuple[str, str]]:
    kept = (row.base, row.model, row.state, row.step, *row.updates)
    return ((sha256, why) for sha256 in kept)


def _best(made: Sequence[RoundFacts]) -> Iterator[tuple[str, str]]:
    scored = [row for row in made if row.score is not None]
    if scored:
        best = max(scored, key=lambda row: (row.score or 0.0, row.number))
        yield best.model, f"round {best.number} has the best ROUGE-L"
