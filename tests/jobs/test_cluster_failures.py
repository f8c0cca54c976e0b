"""Clusters whose head is lost, sends nonsense or cannot fold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.federation import Federation
from tests.jobs.hubs import FLAT, TREE, Hub, at_the_folds, mean_step, trainers
from webapp.jobs.lifecycle import services


def test_offline_head_leaves_cluster_to_server(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    trainers(federation)
    gone, _ = hub("hub-x"), hub("hub-y")
    job = federation.started(tree=TREE)
    federation.lose(gone)
    federation.run(job)
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)
    assert federation.round(job).fold["slots"] == [0, 1, 5]
    line = "hub-x, round 1: it is offline or cannot work; its cluster's updates go up one by one"
    assert line in federation.log(job)


def test_head_lost_in_fold_is_retried(federation: Federation, hub: Callable[..., Hub]) -> None:
    trainers(federation)
    dying, _ = hub("hub-x"), hub("hub-y")
    job = at_the_folds(federation)
    first = dying.take()
    dying.fold(first)
    dying.done.add(first["assignment"])
    dying.hello("boot-again")
    federation.run(job)
    assert federation.parts(job, "fold") == {
        ("hub-x", 1): "expired",
        ("hub-x", 2): "folded",
        ("hub-y", 1): "folded",
    }
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)


def test_silent_head_is_given_up(federation: Federation, hub: Callable[..., Hub]) -> None:
    trainers(federation)
    silent, other = hub("hub-x"), hub("hub-y")
    job = at_the_folds(federation)
    late = silent.take()
    other.work()
    federation.lose(silent)
    federation.later(601)
    federation.reconcile()
    federation.work_off()
    assert federation.round(job).fold["slots"] == [0, 1, 5]
    assert silent.upload(late["assignment"], b"x").status_code == 409
    federation.run(job)
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)


def test_invalid_cluster_update_names_its_device(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    """The head cannot fold it; the server folds the others and says whose it was."""
    trainers(federation)
    head, _ = hub("hub-x"), hub("hub-y")
    federation.pis[0].number = float("nan")
    job = at_the_folds(federation)
    work = head.take()
    head.done.add(work["assignment"])
    body = {"reason": "the update of slot 0: holds NaN", "retryable": False}
    assert head.act(work["assignment"], "fail", body).status_code == 200
    federation.run(job)
    assert federation.round(job).fold["slots"] == [1, 5]
    assert "pi-a, round 1: update refused" in federation.log(job)
    assert mean_step(job) == pytest.approx((2 * 20 + 3 * 30 + 4 * 40) / 90, rel=1e-6)


def test_invalid_fold_is_undone(federation: Federation, hub: Callable[..., Hub]) -> None:
    """What the head sent is refused, and its cluster's updates are folded one by one."""
    trainers(federation)
    head, _ = hub("hub-x"), hub("hub-y")
    job = at_the_folds(federation)
    work = head.take()
    head.done.add(work["assignment"])
    content = head.update_for(work, number=float("inf"))
    assert head.upload(work["assignment"], content).status_code == 204
    assert head.report_fold(work, content).status_code == 200
    federation.run(job)
    assert federation.round(job).fold["slots"] == [0, 1, 5]
    assert "hub-x, round 1: update refused" in federation.log(job)
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)


def test_pause_in_fold_restarts_round(federation: Federation, hub: Callable[..., Hub]) -> None:
    trainers(federation)
    hub("hub-x"), hub("hub-y")
    job = at_the_folds(federation)
    services.move(job.pk, "pause", None)
    federation.work_off()
    assert federation.round(job).phase == "failed"
    services.move(job.pk, "resume", None)
    federation.run(job)
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)


def test_head_revoked_since_launch_is_skipped(
    federation: Federation, hub: Callable[..., Hub]
) -> None:
    from webapp.jobs.lifecycle import enrolment as devices

    trainers(federation)
    hub("hub-x"), hub("hub-y")
    job = services.create_job(federation.spec(tree=TREE), None, launch=False)
    devices.revoke(federation.pis[4].device, None)
    services.move(job.pk, "launch", None)
    federation.pis.pop(4)
    federation.run(job)
    assert federation.round(job).fold["slots"] == [0, 1, 4]
    assert mean_step(job) == pytest.approx(FLAT, rel=1e-6)
