"""Clusters in a round: offers to fold, their order, and what happens if a head cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedcore.rounds.clusters import inputs_of_fold, server_inputs
from fedcore.rounds.queries import waiting_for
from fedcore.rounds.synchronous import step
from fedcore.rounds.types import (
    Aggregate,
    Aggregated,
    AssignmentState,
    Offer,
    Revoke,
    RoundPhase,
    RoundState,
    Task,
)
from fedcore.topology import clusters
from tests.fedcore.rounds.rounds import DUE, LEASE, NOW, SILENT, STOP, a_round, part, tick

HUBS = frozenset({"a", "b", "c", "d", "hub", "upper"})
# upper folds hub and d; hub folds a and b; c reports to the server.
TREE = clusters({"a": "hub", "b": "hub", "hub": "upper", "d": "upper"})
TRAINED = tuple(part(name, "reported") for name in "abcd")


def fold(device: str, phase: str, attempt: int = 1, **changes: Any) -> AssignmentState:
    return part(device, phase, attempt, task=Task.FOLD, **changes)


def folding(*parts: AssignmentState, phase: str = "folding") -> RoundState:
    return a_round(phase, *TRAINED, *parts, members=tuple("abcd"), clusters=TREE)


def offers(effects: tuple[object, ...]) -> list[tuple[str, int]]:
    return [(e.device, e.attempt) for e in effects if isinstance(e, Offer) and e.task is Task.FOLD]


def names(items: tuple[AssignmentState, ...]) -> list[str]:
    return [f"{item.task.value} {item.device}" for item in items]


def test_inner_clusters_are_folded_first() -> None:
    after, effects = step(folding(phase="collecting"), tick(online=HUBS))
    assert (after.phase.value, offers(effects)) == ("folding", [("hub", 1)])
    assert names(inputs_of_fold(after, "hub")) == ["train a", "train b"]
    assert waiting_for(after, NOW, {}).startswith(
        "1 of 2 devices still folding their clusters: hub"
    )
    after, effects = step(folding(fold("hub", "reported")), tick(online=HUBS))
    assert (after.phase.value, offers(effects)) == ("folding", [("upper", 1)])
    assert names(inputs_of_fold(after, "upper")) == ["train d", "fold hub"]
    after, effects = step(
        folding(fold("hub", "reported"), fold("upper", "reported")), tick(online=HUBS)
    )
    assert after.phase.value == "aggregating"
    assert [e.devices for e in effects if isinstance(e, Aggregate)] == [tuple("abcd")]
    assert names(server_inputs(after)) == ["train c", "fold upper"]
    done, _ = step(after, Aggregated(NOW))
    assert {item.phase.value for item in done.assignments if item.task is Task.FOLD} == {"folded"}


def test_offline_heads_cluster_is_passed_up() -> None:
    after, effects = step(folding(phase="collecting"), tick(online=HUBS - {"hub"}))
    assert offers(effects) == [("upper", 1)]
    revoked = [effect for effect in effects if isinstance(effect, Revoke)]
    assert [(item.device, item.silent) for item in revoked] == [("hub", True)]
    assert names(inputs_of_fold(after, "upper")) == ["train d", "train a", "train b"]
    back, effects = step(after, tick(online=HUBS))
    assert not offers(effects) and back == after


def test_refused_fold_is_passed_up() -> None:
    refused = fold("hub", "refused", retryable=False)
    after, effects = step(folding(refused, fold("upper", "refused")), tick(online=HUBS))
    assert after.phase.value == "aggregating"
    assert names(server_inputs(after)) == ["train c", "train d", "train a", "train b"]
    assert not offers(effects)


def test_lost_fold_is_retried_up_to_max_attempts() -> None:
    training = fold("hub", "training", **SILENT)
    after, effects = step(folding(training), tick(online=HUBS))
    assert offers(effects) == [("hub", 2)]
    second = [fold("hub", "expired"), fold("hub", "training", 2, lease_until=NOW - 1)]
    after, effects = step(folding(*second), tick(online=HUBS))
    assert offers(effects) == [("upper", 1)]
    assert names(inputs_of_fold(after, "upper")) == ["train d", "train a", "train b"]


def test_unaccepted_fold_expires_with_its_lease() -> None:
    offered = fold("hub", "offered")
    _, effects = step(folding(offered), tick(LEASE + 1, online=HUBS))
    assert offers(effects) == [("hub", 2)]


def test_deadline_passes_clusters_up() -> None:
    training = fold("hub", "training", lease_until=NOW + 1000)
    after, effects = step(folding(training), tick(DUE, online=HUBS))
    assert after.phase.value == "aggregating"
    assert [e.device for e in effects if isinstance(e, Revoke)] == ["hub", "upper"]
    assert names(server_inputs(after)) == ["train c", "train d", "train a", "train b"]


def test_cluster_of_one_update_is_passed_up() -> None:
    alone = a_round(
        "collecting",
        part("a", "reported"),
        part("c", "reported"),
        members=("a", "b", "c"),
        clusters=clusters({"a": "hub", "b": "hub"}),
    )
    after, effects = step(alone, tick(online=HUBS))
    assert after.phase.value == "aggregating" and not offers(effects)
    assert sorted(names(server_inputs(after))) == ["train a", "train c"]


def test_training_head_folds_its_own_update() -> None:
    both = a_round(
        "collecting",
        part("a", "reported"),
        part("b", "reported"),
        clusters=clusters({"b": "a"}),
    )
    after, effects = step(both, tick(online=HUBS))
    assert offers(effects) == [("a", 1)]
    assert names(inputs_of_fold(after, "a")) == ["train a", "train b"]


def test_pause_revokes_a_fold() -> None:
    after, effects = step(folding(fold("hub", "training")), STOP)
    assert after.phase.value == "failed"
    assert [e.device for e in effects if isinstance(e, Revoke)] == ["hub"]


def heads_only(*parts: AssignmentState, phase: str = "folding") -> RoundState:
    """Two children of a parent; only the parent can fold their updates."""
    round_ = a_round(phase, *parts, members=("a", "b"), clusters=clusters({"a": "hub", "b": "hub"}))
    return replace(round_, policy=replace(round_.policy, heads_only=True, max_attempts=2))


def test_heads_only_waits_for_an_offline_head() -> None:
    both = part("a", "reported"), part("b", "reported")
    after, effects = step(heads_only(*both, phase="collecting"), tick(online=HUBS - {"hub"}))
    assert after.phase.value == "folding" and not effects
    back, effects = step(after, tick(online=HUBS))
    assert offers(effects) == [("hub", 1)]
    done, _ = step(replace(back, assignments=(*both, fold("hub", "reported"))), tick(online=HUBS))
    assert done.phase.value == "aggregating"


def test_heads_only_folds_a_single_update() -> None:
    current = heads_only(part("a", "reported"), part("b", "failed", retryable=False))
    _, effects = step(replace(current, phase=RoundPhase.COLLECTING), tick(online=HUBS))
    assert offers(effects) == [("hub", 1)]


def test_heads_only_fails_without_the_head() -> None:
    both = part("a", "reported"), part("b", "reported")
    lost = fold("hub", "failed", 2, reason="its disk is full")
    after, _ = step(heads_only(*both, lost), tick(online=HUBS))
    assert after.phase.value == "failed"
    reason = "only hub can fold the cluster's updates, and did not: hub: its disk is full"
    assert after.reason == reason
    late, effects = step(heads_only(*both), tick(DUE, online=HUBS - {"hub"}))
    assert late.phase.value == "failed" and "by the deadline" in late.reason
    assert [effect.device for effect in effects if isinstance(effect, Revoke)] == ["hub"]
