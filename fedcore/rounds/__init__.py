"""The life of a round as a pure machine: state and event in, state and effects out.

Time comes in as seconds since the epoch with the event; nothing here reads a clock, draws a number
or touches a row. A shell (``workers.coordinator``) loads a Round from the database, calls ``step``,
stores what changed and carries out the effects. Effects may be carried out twice: each names what
it is about, and the shell makes the second time a no-op.
"""

from fedcore.rounds.buffered import Window, step_buffered
from fedcore.rounds.clock_gaps import uncounted_s
from fedcore.rounds.clusters import sent_up, takes, top, trained_by, unsettled
from fedcore.rounds.queries import (
    failure_reasons,
    latest,
    may_take_back,
    move_refusal,
    tally,
    unfolded,
    waiting_for,
    waiting_for_buffer,
)
from fedcore.rounds.synchronous import step
from fedcore.rounds.types import (
    ACTIVE,
    DELIVERED,
    ENDED,
    HELD,
    Aggregate,
    Aggregated,
    AggregationFailed,
    Assignment,
    AssignmentPhase,
    Buffering,
    Effect,
    Ended,
    Event,
    Interrupted,
    Measured,
    Offer,
    Policy,
    Revoke,
    Round,
    RoundPhase,
    Task,
    Tick,
)

__all__ = [
    "ACTIVE",
    "DELIVERED",
    "ENDED",
    "HELD",
    "Aggregate",
    "Aggregated",
    "AggregationFailed",
    "Assignment",
    "AssignmentPhase",
    "Buffering",
    "Effect",
    "Ended",
    "Event",
    "Interrupted",
    "Measured",
    "Offer",
    "Policy",
    "Revoke",
    "Round",
    "RoundPhase",
    "Task",
    "Tick",
    "Window",
    "failure_reasons",
    "latest",
    "may_take_back",
    "move_refusal",
    "sent_up",
    "step",
    "step_buffered",
    "takes",
    "tally",
    "top",
    "trained_by",
    "uncounted_s",
    "unfolded",
    "unsettled",
    "waiting_for",
    "waiting_for_buffer",
]
