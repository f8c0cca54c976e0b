"""Questions about a round that coordinator, pages and API ask; none of them changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedcore.rounds.types import (
    ACTIVE,
    DELIVERED,
    DEVICE_MOVES,
    ENDED,
    SILENT,
    AssignmentPhase,
    AssignmentState,
    RoundPhase,
    RoundState,
    Task,
)

BUSY_WITH = {RoundPhase.FOLDING: Task.FOLD, RoundPhase.EVALUATING: Task.EVALUATE}
VERBS = {Task.TRAIN: "train", Task.FOLD: "fold their clusters", Task.EVALUATE: "evaluate"}


def may_retry(current: RoundState, item: AssignmentState) -> bool:
    """Whether a lost attempt may be offered again."""
    return item.retryable and item.attempt < current.policy.max_attempts


def may_resume(current: RoundState, item: AssignmentState) -> bool:
    """Whether a device that is heard of again goes on with an attempt given up for its silence.

    Its work is not lost: after an outage of the server or of the network it may even be done. Not
    where the round has gone on without it, nor where a newer attempt was offered.
    """
    evaluating = current.phase is RoundPhase.EVALUATING
    collecting = current.phase in (RoundPhase.BROADCASTING, RoundPhase.COLLECTING)
    open_ = {Task.TRAIN: collecting, Task.EVALUATE: evaluating}.get(item.task, False)
    silent = item.phase is AssignmentPhase.EXPIRED and item.reason.startswith(SILENT)
    return open_ and silent and latest_attempts(current, item.task).get(item.device) == item


def latest_attempts(current: RoundState, task: Task) -> dict[str, AssignmentState]:
    """The newest attempt of every device, in the order the devices were asked."""
    newest: dict[str, AssignmentState] = {}
    for item in current.assignments:
        held = newest.get(item.device)
        if item.task is task and (held is None or item.attempt > held.attempt):
            newest[item.device] = item
    order = _asked(current, task)
    return {device: newest[device] for device in order if device in newest}


def _asked(current: RoundState, task: Task) -> Sequence[str]:
    if task is Task.FOLD:
        return [cluster.head for cluster in current.clusters]
    return current.members if task is Task.TRAIN else current.evaluators


def tally(current: RoundState, task: Task) -> tuple[list[str], list[str]]:
    """Devices that delivered, and devices that still may."""
    items = latest_attempts(current, task).items()
    delivered = [device for device, item in items if item.phase in DELIVERED]
    lost = (AssignmentPhase.EXPIRED, AssignmentPhase.FAILED)
    still = [
        device
        for device, item in items
        if item.phase in ACTIVE or (item.phase in lost and may_retry(current, item))
    ]
    return delivered, still


def train_attempts(current: RoundState, device: str) -> list[AssignmentState]:
    """A device's pieces of training in a round."""
    items = current.assignments
    return [item for item in items if item.task is Task.TRAIN and item.device == device]


def unfolded_updates(current: RoundState) -> list[AssignmentState]:
    """Updates that were reported and not folded, by device in the members' order, by attempt."""
    place = {device: index for index, device in enumerate(current.members)}
    reported = [
        item
        for item in current.assignments
        if (item.task, item.phase) == (Task.TRAIN, AssignmentPhase.REPORTED)
    ]
    return sorted(reported, key=lambda item: (place[item.device], item.attempt))


def failure_reasons(current: RoundState, task: Task) -> str:
    """One line naming each device that failed for good and why."""
    ended = (AssignmentPhase.FAILED, AssignmentPhase.REFUSED, AssignmentPhase.EXPIRED)
    lines = [
        f"{device}: {item.reason}"
        for device, item in latest_attempts(current, task).items()
        if item.phase in ended and item.reason
    ]
    return "; ".join(lines)


def move_refusal(phase: AssignmentPhase, wanted: AssignmentPhase) -> str:
    """Why a device may not move its assignment from ``phase`` to ``wanted``; '' if it may."""
    if phase in DEVICE_MOVES.get(wanted, frozenset()):
        return ""
    if phase in DELIVERED:
        return "this assignment has already been answered; the first answer counts"
    if phase is wanted:
        return f"this assignment is already {phase.value}"
    if phase not in ACTIVE:
        return f"this assignment is over ({phase.value}); wait for the next offer"
    return f"an assignment that is {phase.value} cannot become {wanted.value}"


def waiting_for(current: RoundState, now: float, last_seen: Mapping[str, float]) -> str:
    """One sentence that says what the round is waiting for. ``last_seen`` are epoch seconds."""
    if current.phase is RoundPhase.PLANNED:
        return "waiting for the coordinator to offer the round"
    if current.phase is RoundPhase.AGGREGATING:
        return "waiting for an aggregation worker to fold the updates"
    if current.phase in ENDED:
        return ""
    task = BUSY_WITH.get(current.phase, Task.TRAIN)
    open_ = tally(current, task)[1]
    total = len(_asked(current, task))
    verb = VERBS[task]
    shown = ", ".join(_seen(device, now, last_seen) for device in open_[:3])
    more = f" and {len(open_) - 3} more" if len(open_) > 3 else ""
    return f"waiting for {len(open_)} of {total} to {verb}: {shown}{more}"


def waiting_for_buffer(
    window: Sequence[RoundState], now: float, last_seen: Mapping[str, float]
) -> str:
    """The same of an asynchronous job, from all its open rounds; the newest comes last."""
    current = window[-1]
    buffering = current.policy.buffering
    if buffering is None or current.phase is not RoundPhase.COLLECTING:
        return waiting_for(current, now, last_seen)
    held = sum(len(unfolded_updates(each)) for each in window)
    training = [
        item.device
        for each in window
        for item in each.assignments
        if item.task is Task.TRAIN and item.phase in ACTIVE
    ]
    shown = ", ".join(_seen(device, now, last_seen) for device in training[:3])
    more = f" and {len(training) - 3} more" if len(training) > 3 else ""
    who = f"{len(training)} devices train: {shown}{more}" if training else "no device trains"
    return f"{held} of {buffering.size} updates in the buffer; {who}"


def _seen(device: str, now: float, last_seen: Mapping[str, float]) -> str:
    if device not in last_seen:
        return f"{device}, never seen"
    return f"{device}, last seen {max(0, round(now - last_seen[device]))} s ago"
