"""Read-only queries on a round, for the coordinator, the pages and the API."""

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
ACTIVITIES = {
    Task.TRAIN: "training",
    Task.FOLD: "folding their clusters",
    Task.EVALUATE: "evaluating",
}
LISTED_DEVICES = 3  # named in a sentence; the others are counted
NO_REASONS: Mapping[str, str] = {}
QUIET_AFTER_S = 30.0  # a device at work calls every few seconds


def may_retry(current: RoundState, item: AssignmentState) -> bool:
    """Whether a lost attempt may be offered again."""
    return item.retryable and item.attempt < current.policy.max_attempts


def may_resume(current: RoundState, item: AssignmentState) -> bool:
    """Whether a device that calls again may resume an attempt that expired while it was silent.

    After an outage its work may even be complete. The attempt is lost once the round has moved on
    or a newer attempt was offered.
    """
    if item.task is Task.TRAIN:
        phases: tuple[RoundPhase, ...] = (RoundPhase.BROADCASTING, RoundPhase.COLLECTING)
    else:
        phases = (RoundPhase.EVALUATING,) if item.task is Task.EVALUATE else ()
    silent = item.phase is AssignmentPhase.EXPIRED and item.reason.startswith(SILENT)
    newest = latest_attempts(current, item.task).get(item.device)
    return current.phase in phases and silent and newest == item


def latest_attempts(current: RoundState, task: Task) -> dict[str, AssignmentState]:
    """The newest attempt of each device, in the order of the round's lists of devices."""
    newest: dict[str, AssignmentState] = {}
    for item in current.assignments:
        former = newest.get(item.device)
        if item.task is task and (former is None or item.attempt > former.attempt):
            newest[item.device] = item
    return {device: newest[device] for device in _devices(current, task) if device in newest}


def _devices(current: RoundState, task: Task) -> Sequence[str]:
    if task is Task.FOLD:
        return [cluster.head for cluster in current.clusters]
    return current.members if task is Task.TRAIN else current.evaluators


def tally(current: RoundState, task: Task) -> tuple[list[str], list[str]]:
    """(devices that have delivered, devices that still may)."""
    items = latest_attempts(current, task).items()
    delivered = [device for device, item in items if item.phase in DELIVERED]
    lost = (AssignmentPhase.EXPIRED, AssignmentPhase.FAILED)
    pending = [
        device
        for device, item in items
        if item.phase in ACTIVE or (item.phase in lost and may_retry(current, item))
    ]
    return delivered, pending


def train_attempts(current: RoundState, device: str) -> list[AssignmentState]:
    """A device's attempts to train in a round."""
    items = current.assignments
    return [item for item in items if item.task is Task.TRAIN and item.device == device]


def unfolded_updates(current: RoundState) -> list[AssignmentState]:
    """Updates that are reported and not folded, in the members' order, then by attempt."""
    place = {device: index for index, device in enumerate(current.members)}
    reported = [
        item
        for item in current.assignments
        if item.task is Task.TRAIN and item.phase is AssignmentPhase.REPORTED
    ]
    return sorted(reported, key=lambda item: (place[item.device], item.attempt))


def failure_reasons(current: RoundState, task: Task) -> str:
    """One line that names each device that failed, and why."""
    ended = (AssignmentPhase.FAILED, AssignmentPhase.REFUSED, AssignmentPhase.EXPIRED)
    reasons = [
        f"{device}: {item.reason}"
        for device, item in latest_attempts(current, task).items()
        if item.phase in ended and item.reason
    ]
    return "; ".join(reasons)


def with_reasons(text: str, current: RoundState, task: Task) -> str:
    """``text``, followed by the devices' reasons where they gave any."""
    reasons = failure_reasons(current, task)
    return f"{text}: {reasons}" if reasons else text


def missing_evaluations(current: RoundState, reported: int) -> str:
    """How many evaluations a round closes without; '' if all have ``reported``."""
    missing = len(current.evaluators) - reported
    if missing < 1:
        return ""
    return "1 evaluation is missing" if missing == 1 else f"{missing} evaluations are missing"


def move_refusal(phase: AssignmentPhase, target: AssignmentPhase) -> str:
    """Why a device may not move its assignment from ``phase`` to ``target``; '' if it may."""
    if phase in DEVICE_MOVES.get(target, frozenset()):
        return ""
    if phase in DELIVERED:
        return "this assignment already has a result; the first result counts"
    if phase is target:
        return f"this assignment is already {phase.value}"
    if phase not in ACTIVE:
        return f"this assignment is over ({phase.value}); wait for the next offer"
    return f"an assignment that is {phase.value} cannot become {target.value}"


def waiting_for(
    current: RoundState,
    now: float,
    last_seen: Mapping[str, float],
    reasons: Mapping[str, str] = NO_REASONS,
) -> str:
    """What the round waits for, as one sentence; '' if it has ended.

    ``last_seen``: epoch s. ``reasons``: why a device does not work, for those that do not.
    """
    if current.phase is RoundPhase.PLANNED:
        return "waiting for the coordinator to offer the round"
    if current.phase is RoundPhase.AGGREGATING:
        return "waiting for an aggregation worker to fold the updates"
    if current.phase in ENDED:
        return ""
    task = BUSY_WITH.get(current.phase, Task.TRAIN)
    pending, total = tally(current, task)[1], len(_devices(current, task))
    stalled = [device for device in pending if device in reasons]
    at_work = [device for device in pending if device not in reasons]
    if stalled:
        text = f"waiting for {_list_devices(stalled, now, last_seen, reasons)}"
        share = f"{len(at_work)} of {total} devices {ACTIVITIES[task]}"
        return f"{text}; {share}" if at_work else text
    is_quiet = any(now - last_seen.get(device, 0.0) > QUIET_AFTER_S for device in pending)
    if len(pending) == total and not is_quiet:
        return f"{total} device{'' if total == 1 else 's'} {ACTIVITIES[task]}"
    names = _list_devices(pending, now, last_seen, reasons)
    return f"{len(pending)} of {total} devices still {ACTIVITIES[task]}: {names}"


def waiting_for_buffer(
    window: Sequence[RoundState],
    now: float,
    last_seen: Mapping[str, float],
    reasons: Mapping[str, str] = NO_REASONS,
) -> str:
    """The same for an asynchronous job, from its rounds with work in flight, oldest first."""
    current = window[-1]
    buffering = current.policy.buffering
    if buffering is None or current.phase is not RoundPhase.COLLECTING:
        return waiting_for(current, now, last_seen, reasons)
    buffered = sum(len(unfolded_updates(each)) for each in window)
    training = [
        item.device
        for each in window
        for item in each.assignments
        if item.task is Task.TRAIN and item.phase in ACTIVE
    ]
    # Where nobody trains: which devices could not, and why.
    unable = [f"{device} ({reasons[device]})" for device in current.members if device in reasons]
    if training:
        names = _list_devices(training, now, last_seen, reasons)
        activity = f"{len(training)} training: {names}"
    elif unable:
        listed = ", ".join(unable[:LISTED_DEVICES]) + _others(len(unable))
        activity = f"no device is training: {listed}"
    else:
        activity = "no device is training"
    return f"{buffered} of {buffering.size} updates in the buffer; {activity}"


def _list_devices(
    devices: Sequence[str],
    now: float,
    last_seen: Mapping[str, float],
    reasons: Mapping[str, str],
) -> str:
    """Those that do not work come first."""
    texts = []
    for device in sorted(devices, key=lambda name: name not in reasons)[:LISTED_DEVICES]:
        if device in reasons:
            texts.append(f"{device} ({reasons[device]})")
        elif device in last_seen:
            age_s = max(0, round(now - last_seen[device]))
            texts.append(f"{device}, last seen {age_s} s ago")
        else:
            texts.append(f"{device}, never seen")
    return ", ".join(texts) + _others(len(devices))


def _others(count: int) -> str:
    return f" and {count - LISTED_DEVICES} more" if count > LISTED_DEVICES else ""
