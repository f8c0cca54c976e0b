"""The life of a round as a pure machine: state and event in, state and effects out.

Time comes in as seconds since the epoch with the event; nothing here reads a clock, draws a number
or touches a row. A shell (``workers.coordinator``) loads a Round from the database, calls ``step``,
stores what changed and carries out the effects. Effects may be carried out twice: each names what
it is about, and the shell makes the second time a no-op.
"""

from fedcore.rounds.machine import step
from fedcore.rounds.questions import (
    failure_reasons,
    latest,
    move_refusal,
    tally,
    waiting_for,
)
from fedcore.rounds.states import (
    ACTIVE,
    DELIVERED,
    ENDED,
    HELD,
    Aggregate,
    Aggregated,
    AggregationFailed,
    Assignment,
    AssignmentPhase,
    Effect,
    Ended,
    Event,
    Interrupted,
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
    "Effect",
    "Ended",
    "Event",
    "Interrupted",
    "Offer",
    "Policy",
    "Revoke",
    "Round",
    "RoundPhase",
    "Task",
    "Tick",
    "failure_reasons",
    "latest",
    "move_refusal",
    "step",
    "tally",
    "waiting_for",
]
