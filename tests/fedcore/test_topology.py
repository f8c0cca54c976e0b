"""The aggregation tree: its errors, automatic parents, and the order of clusters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.errors import SpecError
from fedcore.spec.parse import parse_spec
from fedcore.topology import (
    Roles,
    clusters,
    depth,
    device_faults,
    entry_faults,
    parents_of,
    shared_out,
    star_faults,
)
from tests.fedcore.trees import NAMES, forests


def faults(*entries: str, **groups: dict[str, object]) -> dict[str, str]:
    with pytest.raises(SpecError) as refused:
        parse_spec({"tree": {"parents": list(entries)}, **groups})
    messages: dict[str, str] = {}
    for fault in refused.value.faults:
        messages[fault.path] = f"{messages.get(fault.path, '')} {fault.message}".strip()
    return messages


def test_tree_errors_are_reported_together() -> None:
    (text,) = faults("b=a", "a=c", "c=b", "d", "e=f", "e=g", "h=h").values()
    assert "a under c under b under a is a cycle" in text
    assert "h under h is a cycle" in text
    assert "'d': give CHILD=PARENT" in text
    assert "e has two parents" in text


def test_auto_stands_alone() -> None:
    assert "give auto alone" in faults("auto", "a=b")["tree.parents"]


@pytest.mark.parametrize(
    ("groups", "path"),
    [
        ({"participation": {"mode": "buffered"}}, "participation.mode"),
        ({"strategy": {"fold": "median"}}, "strategy.fold"),
        ({"strategy": {"fold": "trimmed_mean"}}, "strategy.fold"),
        ({"strategy": {"name": "fednova"}}, "strategy.name"),
        ({"strategy": {"name": "qfedavg"}}, "strategy.name"),
        ({"adapter": {"aggregation": "fedex"}}, "adapter.aggregation"),
        ({"adapter": {"aggregation": "flexlora"}}, "adapter.aggregation"),
        ({"adapter": {"aggregation": "stack"}}, "adapter.aggregation"),
    ],
)
def test_what_a_mean_of_means_is_not_the_same_for_is_refused(
    groups: dict[str, dict[str, object]], path: str
) -> None:
    assert "tree" in faults("a=hub", **groups)[path]
    parse_spec(groups)


def test_orphans_roles_and_idle_devices_are_reported_together() -> None:
    parents = {"a": "hub", "b": "c", "ghost": "hub", "d": "nobody", "spare": "hub"}
    roles = Roles({"a", "b", "c", "d"}, {"hub", "spare"})
    text = "; ".join(device_faults(parents, roles))
    assert "'ghost'" in text and "'nobody'" in text
    assert "c may not fold for others; give it the role 'aggregator', or 'both'" in text
    assert "spare neither trains nor folds" in text
    assert not device_faults({"a": "hub", "hub": "c"}, Roles({"a", "c"}, {"hub", "c"}))


@given(st.integers(1, 9), st.integers(0, 5), st.integers(0, 3))
def test_auto_spreads_devices_evenly(trainers: int, heads: int, both: int) -> None:
    aggregators = {f"hub-{n}" for n in range(heads)}
    training = {f"pi-{n}" for n in range(trainers)} | {f"hub-{n}" for n in range(min(both, heads))}
    parents = shared_out(Roles(training, aggregators))
    assert set(parents) == (training - aggregators if heads else set())
    sizes = [list(parents.values()).count(hub) for hub in sorted(aggregators)]
    assert not sizes or max(sizes) - min(sizes) <= 1


@given(forests())
def test_inner_clusters_come_first(parents: dict[str, str]) -> None:
    groups = clusters(parents)
    place = {cluster.head: number for number, cluster in enumerate(groups)}
    links = {child: each.head for each in groups for child in each.children}
    assert links == parents
    assert all(place[c] < place[each.head] for each in groups for c in each.children if c in place)
    assert all(depth(parents, name) == 0 for name in set(NAMES) - set(parents))
    assert not entry_faults([f"{child}={parent}" for child, parent in parents.items()])
    assert parents_of(f"{child}={parent}" for child, parent in parents.items()) == parents


def test_star_is_one_parent_of_all_trainers() -> None:
    assert star_faults({"a": "hub", "b": "hub"}, ["a", "b"]) == []
    assert star_faults({"a": "hub"}, ["a", "b"]) == [
        "b has no parent; name one, or leave the device out of participation.devices"
    ]
    assert star_faults({"a": "hub", "hub": "top"}, ["a"]) == ["hub, top are 2 parents; name one"]
    assert star_faults({"a": "b"}, ["a", "b"]) == [
        "b trains on data of its own and cannot be the parent too; take another device"
    ]
    assert "a has no parent" in star_faults({}, ["a"])[0]
