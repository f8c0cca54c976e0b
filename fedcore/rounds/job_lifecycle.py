"""Life cycle of a job: the moves a person may make, and the coordinator's next step."""

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

# Each move: the phases it is allowed in, and the phase it leads to.
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
    """The newest round of a job. ``tries`` counts how often this number was started."""

    number: int
    phase: RoundPhase
    reason: str = ""
    tries: int = 1


@dataclass(frozen=True)
class Initialise:
    """Have the initial global model written."""


@dataclass(frozen=True)
class StartRound:
    number: int


@dataclass(frozen=True)
class StepRound:
    """Advance the round in progress."""


@dataclass(frozen=True)
class Complete:
    """The last round has closed."""


@dataclass(frozen=True)
class Fail:
    reason: str


NextMove = Initialise | StartRound | StepRound | Complete | Fail


def move_refusal(phase: JobPhase, move: str) -> str:
    """Why this move is not allowed now; '' if it is."""
    sources, _ = PERSON_MOVES[move]
    if phase in sources:
        return ""
    allowed = ", ".join(sorted(source.value for source in sources))
    return f"a {phase.value} job cannot {move}; that needs a job that is {allowed}"


def next_move(rounds: int, initialised: bool, last: LastRound | None, resumed: bool) -> NextMove:
    """The next step of a queued or running job.

    ``resumed``: a person has resumed or retried the job since its newest round failed or was
    interrupted. That round is then started again from the model before it.
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
