"""What a round is made of: phases, assignments, events that come in, effects that go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fedcore.topology import Cluster


class RoundPhase(str, Enum):
    PLANNED = "planned"
    BROADCASTING = "broadcasting"
    COLLECTING = "collecting"
    FOLDING = "folding"
    AGGREGATING = "aggregating"
    EVALUATING = "evaluating"
    CLOSED = "closed"
    FAILED = "failed"


class Task(str, Enum):
    TRAIN = "train"
    FOLD = "fold"
    EVALUATE = "evaluate"


class AssignmentPhase(str, Enum):
    OFFERED = "offered"
    ACCEPTED = "accepted"
    TRAINING = "training"
    UPLOADING = "uploading"
    REPORTED = "reported"
    FOLDED = "folded"
    FAILED = "failed"
    EXPIRED = "expired"
    REFUSED = "refused"


ACTIVE = frozenset(
    {
        AssignmentPhase.OFFERED,
        AssignmentPhase.ACCEPTED,
        AssignmentPhase.TRAINING,
        AssignmentPhase.UPLOADING,
    }
)
LEASED = ACTIVE - {AssignmentPhase.OFFERED}
DELIVERED = frozenset({AssignmentPhase.REPORTED, AssignmentPhase.FOLDED})
ENDED = frozenset({RoundPhase.CLOSED, RoundPhase.FAILED})

# How the reason of an attempt begins that was given up for its device's silence alone.
SILENT = "silent for longer than its lease"

# What a device may do to its assignment, and from where. Everything else is refused with a reason.
DEVICE_MOVES: Mapping[AssignmentPhase, frozenset[AssignmentPhase]] = {
    AssignmentPhase.ACCEPTED: frozenset({AssignmentPhase.OFFERED}),
    AssignmentPhase.TRAINING: frozenset({AssignmentPhase.ACCEPTED}),
    AssignmentPhase.UPLOADING: frozenset({AssignmentPhase.ACCEPTED, AssignmentPhase.TRAINING}),
    AssignmentPhase.REPORTED: LEASED,
    AssignmentPhase.FAILED: ACTIVE,
    AssignmentPhase.REFUSED: ACTIVE,
}


@dataclass(frozen=True)
class AssignmentState:
    """One device's part of one round. ``attempt`` counts from 1 and fences older attempts off.

    ``buffered_in`` is the number of the round that folds its update, in a job with a buffer.
    """

    device: str
    task: Task
    attempt: int
    phase: AssignmentPhase = AssignmentPhase.OFFERED
    lease_until: float = 0.0
    retryable: bool = True
    reason: str = ""
    buffered_in: int | None = None


@dataclass(frozen=True)
class Buffering:
    """Limits of a round that is one version of an asynchronous job.

    ``size`` updates make the version, ``concurrency`` devices train at a time, an update may be
    ``max_staleness`` versions old; ``last`` is the version the job ends with. ``seed`` decides
    whose turn it is where more devices are free than may train.
    """

    size: int
    concurrency: int
    max_staleness: int
    seed: int
    last: bool


@dataclass(frozen=True)
class RoundPolicy:
    """Limits of one round; seconds are durations.

    ``target`` updates close the collection at once, ``quorum`` suffice when the deadline comes.
    ``evaluation_s`` is the evaluation's own deadline (None: ``deadline_s`` holds for both).
    ``heads_only``: nobody but its head can fold a cluster, so a head is waited for.
    """

    target: int
    quorum: int
    deadline_s: float
    lease_s: float
    max_attempts: int
    aggregation_s: float = 1800.0
    evaluation_s: float | None = None
    buffering: Buffering | None = None
    heads_only: bool = False

    @property
    def evaluation_limit_s(self) -> float:
        return self.deadline_s if self.evaluation_s is None else self.evaluation_s

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoundPolicy:
        """Back from ``dataclasses.asdict``."""
        nested = values.get("buffering")
        return cls(**{**values, "buffering": Buffering(**nested) if nested else None})


@dataclass(frozen=True)
class RoundState:
    """One cycle. Number 0 only evaluates the model as it is before any training.

    A round without ``evaluators`` closes as soon as its model is stored. ``clusters`` are folded
    by their heads before the server folds, the inner ones first (see ``fedcore.topology``).
    """

    number: int
    members: tuple[str, ...]
    evaluators: tuple[str, ...]
    policy: RoundPolicy
    phase: RoundPhase = RoundPhase.PLANNED
    deadline_at: float | None = None
    assignments: tuple[AssignmentState, ...] = ()
    reason: str = ""
    clusters: tuple[Cluster, ...] = ()


@dataclass(frozen=True)
class Tick:
    """Time has passed or something was recorded: look again. ``online`` are reachable devices."""

    now: float
    online: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Aggregated:
    """The new global model is stored."""

    now: float


@dataclass(frozen=True)
class AggregationFailed:
    now: float
    reason: str


@dataclass(frozen=True)
class Interrupted:
    """A person paused or cancelled the job, or the job failed."""

    now: float
    reason: str


RoundEvent = Tick | Aggregated | AggregationFailed | Interrupted


@dataclass(frozen=True)
class Offer:
    device: str
    task: Task
    attempt: int


@dataclass(frozen=True)
class Revoke:
    """``silent``: the device has not been heard of, so nobody tells it; it may take its work back
    (see ``may_take_back``) or is told when it speaks again."""

    device: str
    task: Task
    attempt: int
    reason: str
    silent: bool = False


@dataclass(frozen=True)
class Aggregate:
    """Fold the updates of these devices."""

    devices: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """The round reached CLOSED or FAILED."""

    failed: bool
    reason: str


@dataclass(frozen=True)
class EvaluationArrived:
    """Another evaluation of this round's model has arrived."""


Effect = Offer | Revoke | Aggregate | Ended | EvaluationArrived
