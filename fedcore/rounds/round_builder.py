"""A round while it is being stepped: what the synchronous and the buffered machine share."""

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
    """A round being stepped: the one mutable thing, never seen outside a step function."""

    round: RoundState
    effects: list[Effect] = field(default_factory=list)

    def move(self, phase: RoundPhase, reason: str = "", deadline_at: float | None = None) -> None:
        self.round = replace(self.round, phase=phase, reason=reason, deadline_at=deadline_at)
        if phase in ENDED:
            self.effects.append(Ended(phase is RoundPhase.FAILED, reason))

    def put(self, assignment: AssignmentState) -> None:
        others = tuple(a for a in self.round.assignments if _key(a) != _key(assignment))
        self.round = replace(self.round, assignments=(*others, assignment))

    def offer(self, device: str, task: Task, attempt: int, now: float) -> None:
        lease_until = now + self.round.policy.lease_s
        self.put(AssignmentState(device, task, attempt, lease_until=lease_until))
        self.effects.append(Offer(device, task, attempt))

    def revoke(self, item: AssignmentState, reason: str) -> None:
        """Stop an attempt for good: nothing is offered in its place."""
        self.put(replace(item, phase=AssignmentPhase.EXPIRED, reason=reason, retryable=False))
        self.effects.append(Revoke(item.device, item.task, item.attempt, reason))

    def revoke_active(self, reason: str) -> None:
        for item in self.round.assignments:
            if item.phase in ACTIVE:
                self.revoke(item, reason)


def expire_silent(draft: RoundBuilder, tick: Tick) -> None:
    """Give up attempts whose lease ran out; the device may be asked again."""
    for item in draft.round.assignments:
        if item.phase in LEASED and item.lease_until < tick.now:
            reason = f"{SILENT} of {draft.round.policy.lease_s:g} s"
            draft.put(replace(item, phase=AssignmentPhase.EXPIRED, reason=reason))
            away = item.device not in tick.online
            draft.effects.append(Revoke(item.device, item.task, item.attempt, reason, silent=away))


def due(round: RoundState, now: float) -> bool:
    return round.deadline_at is not None and now >= round.deadline_at


def _key(item: AssignmentState) -> tuple[str, Task, int]:
    return (item.device, item.task, item.attempt)
