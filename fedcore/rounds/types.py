"""Value types of the round state machine: phases, assignments, limits, events and effects.

A step function (``fedcore.rounds.synchronous``, ``fedcore.rounds.buffered``) maps a state and an
event to the next state and effects. It is pure: events carry the time in seconds since the epoch,
and nothing here reads a clock, draws a random number or touches a database row. The coordinator
(``workers.coordinator``) loads a ``RoundState``, applies an event, stores the difference and
carries out the effects. An effect may be carried out twice; the second time must do nothing.
"""

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

# Prefix of the reason when a lease expired because the device went silent.
SILENT = "silent for longer than its lease"

# The phases from which a device may move its assignment to another; the rest is refused.
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
    """One device's task in one round. ``attempt`` counts from 1 and invalidates older attempts.

    ``buffered_in``: number of the round that folds its update, in an asynchronous job.
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
    """Limits of one version of an asynchronous job.

    ``size`` updates make the version, ``concurrency`` devices train at a time, and an update may be
    ``max_staleness`` versions old. ``last``: the job ends with this version. ``seed`` orders the
    free devices where more are free than may train.
    """

    size: int
    concurrency: int
    max_staleness: int
    seed: int
    last: bool


@dataclass(frozen=True)
class RoundPolicy:
    """Limits of one round; all times are durations.

    ``target`` updates close the collection at once; ``quorum`` suffice at the deadline.
    ``evaluation_s`` limits the evaluation (None: ``deadline_s`` does). ``heads_only``: only
    its head can fold a cluster, so the round waits for it.
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
        """The inverse of ``dataclasses.asdict``."""
        nested = values.get("buffering")
        return cls(**{**values, "buffering": Buffering(**nested) if nested else None})


@dataclass(frozen=True)
class RoundState:
    """One round. Number 0 only evaluates the initial model.

    A round without ``evaluators`` closes as soon as its model is stored. Heads fold their
    ``clusters`` before the server aggregates, the inner ones first (see ``fedcore.topology``).
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
    """Time has passed or a row has changed. ``online``: devices that are connected and able."""

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
    """The job was paused or cancelled, or it failed."""

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
    """Withdraw an attempt. ``silent``: the device cannot be reached, so no cancel message is sent.
    It may resume the attempt (``may_resume``), or learns of the end on its next call."""

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
