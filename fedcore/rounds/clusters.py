"""Clusters of a hierarchical round: whose updates a head folds, and the offers to do so.

Clusters are folded after the collection, which fixes the updates, and before the server aggregates.
A cluster that its head cannot fold is passed up unfolded: its parent, in the end the server, folds
those updates one by one. The mean is the same; only more bytes travel. A cluster of one update is
passed up too, since folding would only copy it.

With ``RoundPolicy.heads_only`` a head learns from its children in place of averaging them. Then a
cluster of one is folded as well, and an absent head is waited for until the deadline.
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

LOST = (AssignmentPhase.EXPIRED, AssignmentPhase.FAILED)


def inputs_of_fold(current: RoundState, head: str) -> tuple[AssignmentState, ...]:
    """What a head folds: its own update, and what each of its children sends up."""
    children = next((each.children for each in current.clusters if each.head == head), ())
    below = [item for child in children for item in updates_from(current, child)]
    return (*_delivered(current, head, Task.TRAIN), *below)


def server_inputs(current: RoundState) -> tuple[AssignmentState, ...]:
    """What the server folds: each update once, either itself or within a head's fold."""
    below = {child for cluster in current.clusters for child in cluster.children}
    heads = [cluster.head for cluster in current.clusters]
    roots = [name for name in dict.fromkeys((*current.members, *heads)) if name not in below]
    return tuple(item for root in roots for item in updates_from(current, root))


def leaf_updates(current: RoundState, item: AssignmentState) -> tuple[AssignmentState, ...]:
    """The updates by training that an assignment's update is made of."""
    if item.task is Task.TRAIN:
        return (item,)
    inputs = inputs_of_fold(current, item.device)
    return tuple(leaf for each in inputs for leaf in leaf_updates(current, each))


def updates_from(current: RoundState, name: str) -> tuple[AssignmentState, ...]:
    """What a device sends up: its fold, or without one everything it would have folded."""
    return _delivered(current, name, Task.FOLD) or inputs_of_fold(current, name)


def _delivered(current: RoundState, name: str, task: Task) -> tuple[AssignmentState, ...]:
    item = latest_attempts(current, task).get(name)
    return (item,) if item is not None and item.phase in DELIVERED else ()


def pending_heads(current: RoundState) -> list[str]:
    """Heads whose cluster is still to be folded, the deepest first."""
    least = 1 if current.policy.heads_only else 2
    folds = latest_attempts(current, Task.FOLD)
    heads = []
    for cluster in current.clusters:
        item = folds.get(cluster.head)
        if item is None:
            pending = len(inputs_of_fold(current, cluster.head)) >= least
        else:
            pending = item.phase in ACTIVE or (item.phase in LOST and may_retry(current, item))
        if pending:
            heads.append(cluster.head)
    return heads


def unfolded_heads(current: RoundState) -> list[str]:
    """Heads that have not folded a cluster that only they can fold."""
    if not current.policy.heads_only:
        return []
    heads = [cluster.head for cluster in current.clusters]
    return [head for head in heads if not _delivered(current, head, Task.FOLD)]


def offer_folds(builder: RoundBuilder, tick: Tick) -> None:
    """Offer each cluster whose inner clusters are done; pass up those whose head is offline."""
    for item in builder.state.assignments:
        offered = item.task is Task.FOLD and item.phase is AssignmentPhase.OFFERED
        if offered and item.lease_until < tick.now:  # the round waits for nothing but the folds
            reason = "it did not accept its cluster's fold within a lease"
            builder.put(replace(item, phase=AssignmentPhase.EXPIRED, reason=reason))
            builder.effects.append(Revoke(item.device, item.task, item.attempt, reason))
    for cluster in builder.state.clusters:
        pending = pending_heads(builder.state)
        former = latest_attempts(builder.state, Task.FOLD).get(cluster.head)
        if cluster.head not in pending or set(cluster.children) & set(pending):
            continue
        if former is not None and former.phase in ACTIVE:
            continue
        if cluster.head in tick.online:
            builder.offer(cluster.head, Task.FOLD, former.attempt + 1 if former else 1, tick.now)
        elif not builder.state.policy.heads_only:
            why = former.reason if former else "it is offline or cannot work"
            reason = f"{why}; its cluster's updates go up one by one"
            _give_up(builder, former or AssignmentState(cluster.head, Task.FOLD, 1), reason)


def _give_up(builder: RoundBuilder, item: AssignmentState, reason: str) -> None:
    expired = replace(item, phase=AssignmentPhase.EXPIRED, reason=reason, retryable=False)
    builder.put(expired)
    builder.effects.append(Revoke(item.device, item.task, item.attempt, reason, silent=True))


def give_up_all(builder: RoundBuilder) -> None:
    """At the deadline, end every fold that is not done."""
    if builder.state.policy.heads_only:
        reason = "it did not fold its cluster by the deadline, and no other device can"
    else:
        reason = "it did not fold its cluster by the deadline; the updates go up one by one"
    for item in builder.state.assignments:
        if item.task is Task.FOLD and item.phase in ACTIVE:
            builder.revoke(item, reason)
    for head in pending_heads(builder.state):
        newest = latest_attempts(builder.state, Task.FOLD).get(head)
        _give_up(builder, newest or AssignmentState(head, Task.FOLD, 1), reason)
