"""Devices that aggregate their cluster, by the calls of docs/reference/protocol.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedcore.errors import SpecError
from tests.federation import Federation
from tests.jobs.hubs import FLAT, TREE, Hub, at_the_folds, mean_step, trainers
from webapp.accounts.models import User
from webapp.jobs.models import Assignment, Job, Participant


def closed(federation: Federation, **changes: Any) -> Job:
    return federation.run(federation.launch(tree=TREE, **changes))


def test_clusters_are_folded_by_their_devices(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    trainers(federation)
    hub("hub-x"), hub("hub-y")
    job = closed(federation)
    assert job.phase == "completed"
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)
    row = federation.round(job)
    assert row.fold["slots"] == [4, 5]
    assert row.fold["weights"] == {"4": pytest.approx(0.3), "5": pytest.approx(0.7)}
    result = [
        (one["slot"], one["level"], one["slots"], one["examples"]) for one in row.fold["clusters"]
    ]
    assert result == [(4, 1, [0, 1], 30), (5, 1, [2, 3], 70)]
    assert all(one["bytes_in"] > 1.9 * one["bytes_up"] > 0 for one in row.fold["clusters"])
    log = federation.log(job)
    assert "hub-x, round 1: aggregated pi-a, pi-b: " in log
    assert set(federation.parts(job, "fold").values()) == {"folded"}
    assert set(federation.parts(job).values()) == {"folded"}


def test_tree_participants_get_their_parents(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    """Slots of trainers are those they would have without a tree: they draw the same."""
    trainers(federation)
    hub("hub-x"), hub("a-hub"), hub("unneeded")
    tree = {"parents": ["pi-a=hub-x", "pi-b=hub-x", "hub-x=a-hub"]}
    job = federation.launch(tree=tree)
    rows = Participant.objects.filter(job=job).order_by("slot")
    result = [(row.slot, row.device.name, row.parent, row.dataset) for row in rows]
    assert result == [
        (0, "pi-a", 5, "law"),
        (1, "pi-b", 5, "law"),
        (2, "pi-c", None, "law"),
        (3, "pi-d", None, "law"),
        (4, "a-hub", None, ""),
        (5, "hub-x", 4, ""),
    ]
    federation.run(job)
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)
    # a-hub has one update to fold, hub-x's; that goes to the server as it is.
    assert [one["slot"] for one in federation.round(job).fold["clusters"]] == [5]


def test_three_level_tree_is_folded(federation: Federation, hub: Callable[..., Hub]) -> None:
    trainers(federation)
    hub("hub-x"), hub("hub-y")
    tree = {"parents": ["pi-a=hub-x", "pi-b=hub-x", "pi-c=hub-y", "hub-x=hub-y"]}
    job = federation.run(federation.launch(tree=tree))
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)
    result = [
        (one["slot"], one["level"], one["slots"]) for one in federation.round(job).fold["clusters"]
    ]
    assert result == [(4, 2, [0, 1]), (5, 1, [2, 4])]
    assert federation.round(job).fold["slots"] == [3, 5]


def test_training_head_folds_its_own_update(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    trainers(federation, "ab")
    hub("hub", "both", number=5.0, examples=40)
    job = federation.run(federation.launch(tree={"parents": ["pi-a=hub", "pi-b=hub"]}))
    assert mean_step(job) == pytest.approx((1 * 10 + 2 * 20 + 5 * 40) / 70, rel=1e-6)
    assert [one["slots"] for one in federation.round(job).fold["clusters"]] == [[0, 1, 2]]


def test_auto_tree_divides_devices(federation: Federation, hub: Callable[..., Hub]) -> None:
    trainers(federation)
    hub("hub-x"), hub("hub-y")
    job = federation.run(federation.launch(tree={"parents": ["auto"]}))
    rows = Participant.objects.filter(job=job).order_by("slot")
    assert [row.parent for row in rows] == [4, 4, 5, 5, None, None]
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)


def test_fold_report_is_idempotent_and_weight_checked(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    trainers(federation)
    head, _ = hub("hub-x"), hub("hub-y")
    job = at_the_folds(federation)
    work = head.take()
    content = head.fold(work)
    assert head.report_fold(work, content).status_code == 409  # nothing is uploaded yet
    assert head.upload(work["assignment"], content).status_code == 204
    answer = head.report_fold(work, content, extra=1)
    assert answer.status_code == 409
    assert "have 30 examples, not 31" in answer.json()["detail"]
    assert head.report_fold(work, content).status_code == 200
    assert head.report_fold(work, content).status_code == 200
    head.done.add(work["assignment"])
    federation.run(job)
    assert federation.log(job).count("hub-x, round 1: aggregated pi-a, pi-b") == 1
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)


def test_only_head_downloads_cluster_updates(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    trainers(federation)
    head, other = hub("hub-x"), hub("hub-y")
    at_the_folds(federation)
    mine, theirs = head.take()["fold"]["updates"], other.take()["fold"]["updates"]
    assert head.download(mine[0]["sha256"]).status_code == 200
    assert head.download(theirs[0]["sha256"]).status_code == 404
    assert federation.pis[0].download(mine[0]["sha256"]).status_code == 404


def test_quorum_counts_devices_not_clusters(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    trainers(federation)
    hub("hub-x"), hub("hub-y")
    job = closed(federation, participation={"quorum": 1.0})
    assert job.phase == "completed"
    assert Assignment.objects.filter(round__job=job, task="fold", phase="folded").count() == 2


def test_impossible_tree_is_refused_at_launch(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    trainers(federation, "ab")
    with pytest.raises(SpecError) as refused:
        federation.launch(tree={"parents": ["pi-a=pi-b", "pi-b=nobody"]})
    text = str(refused.value)
    assert "'nobody'" in text and "pi-b may not fold for others; give it the role" in text
    with pytest.raises(SpecError, match="no device may aggregate"):
        federation.launch(tree={"parents": ["auto"]})
    hub("hub")
    federation.launch(tree={"parents": ["auto"]})


def test_page_shows_clusters(
    federation: Federation, hub: Callable[..., Hub], client: Any, viewer: User
) -> None:
    trainers(federation)
    hub("hub-x"), hub("hub-y")
    job = at_the_folds(federation)
    client.force_login(viewer)
    page = client.get(f"/jobs/{job.pk}/").content.decode()
    assert "folding their clusters" in page
    federation.run(job)
    result = client.get(f"/api/v1/jobs/{job.pk}/live/").json()
    folded_by = {one["name"]: (one["parent"], one["dataset"]) for one in result["devices"]}
    assert folded_by["pi-a"] == ("hub-x", "law")
    assert folded_by["hub-x"] == ("", "")
    assert [one["slots"] for one in result["rounds"][-1]["clusters"]] == [[0, 1], [2, 3]]
    page = client.get(f"/jobs/{job.pk}/").content.decode()
    assert "pi-a, pi-b" in page and "1 of 1" in page
    assert client.get(f"/jobs/{job.pk}/report/").status_code == 200
