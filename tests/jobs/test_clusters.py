"""Devices that aggregate their cluster, by the calls of docs/reference/protocol.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from fedcore.aggregation.hierarchical import fold_cluster
from fedcore.aggregation.update_files import UpdateFile
from fedcore.errors import SpecError
from fedcore.spec.parse import parse_spec
from tests.conftest import Enrolled, Outbox
from tests.device import Pi, digest_of, weights
from tests.federation import Federation
from webapp.accounts.models import User
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Assignment, Job, Participant

TREE = {"parents": ["pi-a=hub-x", "pi-b=hub-x", "pi-c=hub-y", "pi-d=hub-y"]}
FOLDED = {"seconds": 0.1, "updates": 2}


class Hub(Pi):
    """A device that folds what it is offered."""

    folder: Path

    def answer(self, work: Mapping[str, Any]) -> None:
        if work["task"] != "fold":
            super().answer(work)
            return
        content = self.fold(work)
        assert self.upload(work["assignment"], content).status_code == 204
        answer = self.report_fold(work, content)
        assert answer.status_code == 200, answer.content

    def fold(self, work: Mapping[str, Any]) -> bytes:
        """Folds with the agent's code the updates that the server serves."""
        files = []
        for part in work["fold"]["updates"]:
            path = self.folder / part["sha256"]
            path.write_bytes(b"".join(self.download(part["sha256"]).streaming_content))  # type: ignore[attr-defined]
            assert path.stat().st_size == part["size_bytes"]
            files.append(UpdateFile(path, part["examples"], part["slot"]))
        meta = {
            "kind": "update",
            "job": work["job"],
            "round": str(work["round"]),
            "base": work["global"]["sha256"],
        }
        shapes = {name: tuple(shape) for name, shape in work["fold"]["shapes"].items()}
        out = self.folder / f"{self.name}.out"
        fold_cluster(parse_spec(work["spec"]), shapes, files, meta, out)
        return out.read_bytes()

    def report_fold(self, work: Mapping[str, Any], content: bytes, extra: int = 0) -> Any:
        examples = sum(part["examples"] for part in work["fold"]["updates"]) + extra
        body = {"update": digest_of(content), "examples": examples, "metrics": FOLDED}
        return self.act(work["assignment"], "report", body)


@pytest.fixture
def hub(
    federation: Federation,
    enrolled_device: Callable[..., Enrolled],
    outbox: Outbox,
    tmp_path: Path,
) -> Callable[..., Hub]:
    def make(name: str, role: str = "aggregator", **changes: Any) -> Hub:
        created = Hub(enrolled_device(name, 40, role), outbox, **changes)
        created.folder = tmp_path
        created.hello(f"boot-{name}")
        federation.pis.append(created)
        return created

    return make


def trainers(federation: Federation, names: str = "abcd") -> list[Pi]:
    return [
        federation.device(f"pi-{name}", number=number + 1.0, examples=10 * (number + 1))
        for number, name in enumerate(names)
    ]


def mean_step(job: Job, number: int = 1) -> float:
    """What the round has added to each weight (every test's device adds one number to all)."""
    row = job.rounds.filter(number=number, phase="closed").get()
    before, after = (weights(str(pk)) for pk in (row.base_artefact_id, row.global_artefact_id))
    steps = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert float(steps.max() - steps.min()) < 1e-5
    return float(steps.mean())


FLAT = (1 * 10 + 2 * 20 + 3 * 30 + 4 * 40) / 100


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


def at_the_folds(federation: Federation, **changes: Any) -> Job:
    """A job whose devices have reported, and whose clusters have been offered."""
    job = federation.started(tree=TREE, **changes)
    for pi in federation.pis:
        if not isinstance(pi, Hub):
            pi.work()
    federation.work_off()
    assert federation.round(job).phase == "folding"
    return job


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
    line = "hub-x, round 1: it is offline; its cluster's updates go up one by one"
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
