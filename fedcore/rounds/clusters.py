"""Clusters in a round: whose updates stand where, and the offers to the devices that fold them.

Clusters are folded between the collection, which fixes the updates, and the server's fold. A
cluster that cannot be folded by its head is passed up as it is, so its parent, in the end the
server, folds its updates one by one: the mean is the same, only more bytes travel. A cluster of one
update is passed up as well, since folding would only copy it.

Where only heads can fold (``Policy.heads_only``: a head that learns from its children, in place of
averaging them), one child is a cluster too, and an absent head is waited for until the deadline.
"""

from __future__ import annotations

from dataclasses import replace

from fedcore.rounds.queries import latest_attempts, may_retry
from fedcore.rounds.round_builder import RoundBuilder
from fedcore.rounds.types import (
    ACTIVE,
    DELIVERED,
    AssignmentPhase,
    AssignmentState,
    Revoke,
    RoundState,
    Task,
    Tick,
)
from fedcore.topology import Cluster

LOST = (AssignmentPhase.EXPIRED, AssignmentPhase.FAILED)
TAKEN_UP = {False: "the updates go up one by one", True: "nobody else can fold it"}  # heads_only


def inputs_of_fold(current: RoundState, head: str) -> tuple[AssignmentState, ...]:
    """What a head folds: its own update, and what comes from each of its children."""
    own = _delivered(current, head, Task.TRAIN)
    return (
        *own,
        *(item for child in _children(current, head) for item in updates_from(current, child)),
    )


def server_inputs(current: RoundState) -> tuple[AssignmentState, ...]:
    """What the server folds: of each update either itself or the one fold that holds it."""
    below = {child for cluster in current.clusters for child in cluster.children}
    heads = [cluster.head for cluster in current.clusters]
    roots = [name for name in dict.fromkeys((*current.members, *heads)) if name not in below]
    return tuple(item for root in roots for item in updates_from(current, root))


def leaf_updates(current: RoundState, item: AssignmentState) -> tuple[AssignmentState, ...]:
    """The devices' own updates that an assignment's update is made of."""
    if item.task is Task.TRAIN:
        return (item,)
    return tuple(
        leaf
        for part in inputs_of_fold(current, item.device)
        for leaf in leaf_updates(current, part)
    )


def updates_from(current: RoundState, name: str) -> tuple[AssignmentState, ...]:
    """What a device sends up: its fold, or where there is none all that it would have folded."""
    return _delivered(current, name, Task.FOLD) or inputs_of_fold(current, name)


def _delivered(current: RoundState, name: str, task: Task) -> tuple[AssignmentState, ...]:
    item = latest_attempts(current, task).get(name)
    return (item,) if item is not None and item.phase in DELIVERED else ()


def _children(current: RoundState, head: str) -> tuple[str, ...]:
    return next((each.children for each in current.clusters if each.head == head), ())


def pending_heads(current: RoundState) -> list[str]:
    """Heads whose cluster is still to be folded, the deepest first."""
    return [each.head for each in current.clusters if not _settled(current, each)]


def _settled(current: RoundState, cluster: Cluster) -> bool:
    item = latest_attempts(current, Task.FOLD).get(cluster.head)
    if item is None:
        return len(inputs_of_fold(current, cluster.head)) < (1 if current.policy.heads_only else 2)
    return item.phase not in ACTIVE and not (item.phase in LOST and may_retry(current, item))


def unfolded_heads(current: RoundState) -> list[str]:
    """Heads whose cluster is lost without them, once nobody is waited for any more."""
    if not current.policy.heads_only:
        return []
    heads = [cluster.head for cluster in current.clusters]
    return [head for head in heads if not _delivered(current, head, Task.FOLD)]


def offer_folds(draft: RoundBuilder, tick: Tick) -> None:
    """Offer each cluster whose inner clusters are settled; pass up those that nobody can fold."""
    _expire_untaken(draft, tick)
    for cluster in draft.round.clusters:
        waiting = pending_heads(draft.round)
        item = latest_attempts(draft.round, Task.FOLD).get(cluster.head)
        if cluster.head not in waiting or set(cluster.children) & set(waiting):
            continue
        if item is not None and item.phase in ACTIVE:
            continue
        if cluster.head in tick.online:
            draft.offer(cluster.head, Task.FOLD, item.attempt + 1 if item else 1, tick.now)
        elif not draft.round.policy.heads_only:
            reason = f"{item.reason if item else 'it is away'}; {TAKEN_UP[False]}"
            _give_up(draft, item or AssignmentState(cluster.head, Task.FOLD, 1), reason)


def _expire_untaken(draft: RoundBuilder, tick: Tick) -> None:
    """An offer that nobody takes counts as lost: the round waits for the fold alone."""
    for item in draft.round.assignments:
        offered = (item.task, item.phase) == (Task.FOLD, AssignmentPhase.OFFERED)
        if offered and item.lease_until < tick.now:
            reason = "it did not take its cluster's fold within a lease"
            draft.put(replace(item, phase=AssignmentPhase.EXPIRED, reason=reason))
            draft.effects.append(Revoke(item.device, item.task, item.attempt, reason))


def _give_up(draft: RoundBuilder, item: AssignmentState, reason: str) -> None:
    gone = replace(item, phase=AssignmentPhase.EXPIRED, reason=reason, retryable=False)
    draft.put(gone)
    draft.effects.append(Revoke(item.device, item.task, item.attempt, reason, silent=True))


def give_up_all(draft: RoundBuilder) -> None:
    """The clusters' time is over: what is not folded goes up as it is."""
    what = TAKEN_UP[draft.round.policy.heads_only]
    reason = f"it did not fold its cluster by the deadline; {what}"
    for item in draft.round.assignments:
        if item.task is Task.FOLD and item.phase in ACTIVE:
            draft.revoke(item, reason)
    for head in pending_heads(draft.round):
        item = latest_attempts(draft.round, Task.FOLD).get(head) or AssignmentState(
            head, Task.FOLD, 1
        )
        _give_up(draft, item, reason)
