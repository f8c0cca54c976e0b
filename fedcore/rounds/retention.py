"""Which artefacts of a job to keep, and why; a pure function of its rows.

Everything that a job may still read is kept under any policy: its current model, the base, state,
step and updates of every open round, and the strategy's newest state. The policy decides on the
rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fedcore.rounds.job_lifecycle import JobPhase


@dataclass(frozen=True)
class RetentionPolicy:
    """Keep the newest ``globals_last`` (>= 1) models, and updates for ``updates_s`` seconds after
    their round has ended. Raises ValueError for a limit out of range."""

    globals_last: int = 3
    updates_s: float = 0.0

    def __post_init__(self) -> None:
        if self.globals_last < 1:
            raise ValueError("keep at least 1 model: a running job trains from it")
        if self.updates_s < 0:
            raise ValueError("give 0 or more seconds for which updates are kept")


@dataclass(frozen=True)
class RoundFacts:
    """One round. ``open``: work on it is in flight. ``score``: ROUGE-L, None if unknown.
    ``ended_s``: seconds since it ended. Artefacts are SHA-256 digests, '' for none."""

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
    """One job; ``rounds`` in the order in which they were started."""

    phase: JobPhase
    model: str = ""
    merged: str = ""
    rounds: Sequence[RoundFacts] = field(default_factory=tuple)

    @property
    def may_run(self) -> bool:
        """Whether it may still run: a failed job can be retried, a cancelled one cannot."""
        return self.phase not in (JobPhase.COMPLETED, JobPhase.CANCELLED)


def required_artefacts(job: JobFacts, policy: RetentionPolicy) -> dict[str, str]:
    """SHA-256 of every artefact to keep -> the first reason that applies to it."""
    reasons: dict[str, str] = {}
    for sha256, reason in _reasons(job, policy):
        if sha256:
            reasons.setdefault(sha256, reason)
    return reasons


def _reasons(job: JobFacts, policy: RetentionPolicy) -> Iterator[tuple[str, str]]:
    yield job.model, "the job's model"
    yield job.merged, "the job's merged model"
    for row in job.rounds:
        if row.open and job.may_run:
            for sha256 in (row.base, row.model, row.state, row.step, *row.updates):
                yield sha256, f"round {row.number} is still open"
        if row.pinned:
            yield row.model, f"round {row.number} is pinned"
        if row.ended_s < policy.updates_s:
            yield from ((update, "its round has just ended") for update in row.updates)
    stored = [row for row in job.rounds if row.model]
    for row in stored[-policy.globals_last :]:
        yield row.model, f"one of the last {policy.globals_last} models"
        yield row.step, f"one of the last {policy.globals_last} models"
    if scored := [row for row in stored if row.score is not None]:
        best = max(scored, key=lambda row: (row.score or 0.0, row.number))
        yield best.model, f"round {best.number} has the best ROUGE-L"
    states = [row.state for row in job.rounds if row.state]
    if job.may_run and states:
        yield states[-1], "the strategy continues from this state"
