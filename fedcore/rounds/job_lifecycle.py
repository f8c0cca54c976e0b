"""The life of a job: which moves a person may make, and what the coordinator does next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from fedcore.rounds.types import RoundPhase


class JobPhase(str, Enum):
    DRAFT = "draft"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset({JobPhase.COMPLETED, JobPhase.FAILED, JobPhase.CANCELLED})

# What a person may ask for, from where, and where it leads.
PERSON_MOVES: Mapping[str, tuple[frozenset[JobPhase], JobPhase]] = {
    "launch": (frozenset({JobPhase.DRAFT}), JobPhase.QUEUED),
    "pause": (frozenset({JobPhase.QUEUED, JobPhase.RUNNING}), JobPhase.PAUSED),
    "resume": (frozenset({JobPhase.PAUSED}), JobPhase.QUEUED),
    "retry": (frozenset({JobPhase.FAILED}), JobPhase.QUEUED),
    "cancel": (
        frozenset({JobPhase.DRAFT, JobPhase.QUEUED, JobPhase.RUNNING, JobPhase.PAUSED}),
        JobPhase.CANCELLED,
    ),
}


@dataclass(frozen=True)
class LastRound:
    """The newest round of a job. ``tries`` counts the rounds of this number that were started."""

    number: int
    phase: RoundPhase
    reason: str = ""
    tries: int = 1


@dataclass(frozen=True)
class Initialise:
    """The first global model is missing: have it written."""


@dataclass(frozen=True)
class StartRound:
    number: int


@dataclass(frozen=True)
class StepRound:
    """The newest round is under way: step it."""


@dataclass(frozen=True)
class Complete:
    """The last round has closed."""


@dataclass(frozen=True)
class Fail:
    reason: str


NextMove = Initialise | StartRound | StepRound | Complete | Fail


def move_refusal(phase: JobPhase, move: str) -> str:
    """Why a person may not make this move now; '' if they may."""
    sources, _ = PERSON_MOVES[move]
    if phase in sources:
        return ""
    allowed = ", ".join(sorted(source.value for source in sources))
    return f"a {phase.value} job cannot {move}; that needs a job that is {allowed}"


def next_move(rounds: int, initialised: bool, last: LastRound | None, resumed: bool) -> NextMove:
    """What a queued or running job does next.

    ``resumed`` says that a person resumed or retried the job after its newest round had failed or
    had been interrupted: that round is then started once more from the model before it.
    """
    if not initialised:
        return Initialise()
    if last is None:
        return StartRound(0)
    if last.phase is RoundPhase.FAILED:
        return StartRound(last.number) if resumed else Fail(last.reason)
    if last.phase is not RoundPhase.CLOSED:
        return StepRound()
    return Complete() if last.number >= rounds else StartRound(last.number + 1)
