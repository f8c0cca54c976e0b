"""A round under construction, shared by the synchronous and the buffered step function."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fedcore.rounds.types import (
    ACTIVE,
    ENDED,
    LEASED,
    SILENT,
    AssignmentPhase,
    AssignmentState,
    Effect,
    Ended,
    Offer,
    Revoke,
    RoundPhase,
    RoundState,
    Task,
    Tick,
)


@dataclass
class RoundBuilder:
    """A round and its effects while one event is applied. Never leaves a step function."""

    state: RoundState
    effects: list[Effect] = field(default_factory=list)

    def move(self, phase: RoundPhase, reason: str = "", deadline_at: float | None = None) -> None:
        self.state = replace(self.state, phase=phase, reason=reason, deadline_at=deadline_at)
        if phase in ENDED:
            self.effects.append(Ended(phase is RoundPhase.FAILED, reason))

    def put(self, assignment: AssignmentState) -> None:
        """Store an attempt in place of the one with its device, task and number."""
        key = (assignment.device, assignment.task, assignment.attempt)
        others = [
            item for item in self.state.assignments if (item.device, item.task, item.attempt) != key
        ]
        self.state = replace(self.state, assignments=(*others, assignment))

    def offer(self, device: str, task: Task, attempt: int, now: float) -> None:
        lease_until = now + self.state.policy.lease_s
        self.put(AssignmentState(device, task, attempt, lease_until=lease_until))
        self.effects.append(Offer(device, task, attempt))

    def revoke(self, item: AssignmentState, reason: str) -> None:
        """End an attempt for good: the device is offered no other."""
        self.put(replace(item, phase=AssignmentPhase.EXPIRED, reason=reason, retryable=False))
        self.effects.append(Revoke(item.device, item.task, item.attempt, reason))

    def revoke_active(self, reason: str) -> None:
        for item in self.state.assignments:
            if item.phase in ACTIVE:
                self.revoke(item, reason)


def expire_silent(builder: RoundBuilder, tick: Tick) -> None:
    """Expire attempts whose lease has run out. The device may be offered another one."""
    for item in builder.state.assignments:
        if item.phase in LEASED and item.lease_until < tick.now:
            reason = f"{SILENT} of {builder.state.policy.lease_s:g} s"
            builder.put(replace(item, phase=AssignmentPhase.EXPIRED, reason=reason))
            offline = item.device not in tick.online
            builder.effects.append(
                Revoke(item.device, item.task, item.attempt, reason, silent=offline)
            )


def due(state: RoundState, now: float) -> bool:
    """Whether the deadline has passed."""
    return state.deadline_at is not None and now >= state.deadline_at
