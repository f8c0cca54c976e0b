"""An asynchronous job with devices, coordinator and aggregation worker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.device import Pi
from tests.federation import DEADLINE_S, LEASE_S, Federation, phase_of
from webapp.jobs.analysis import snapshot
from webapp.jobs.lifecycle import services
from webapp.jobs.models import Assignment, Job, Round

BUFFERED = {"mode": "buffered", "buffer_size": 2, "staleness_discount": "none"}


def started(federation: Federation, *, part: dict[str, Any] | None = None, **changes: Any) -> Job:
    """A job whose first version has been offered to everybody."""
    job = federation.launch(participation=BUFFERED | (part or {}), **changes)
    if changes.get("evaluation", {}).get("initial", True):
        for pi in federation.pis:
            pi.work()
    federation.work_off()
    assert federation.round(job).number == 1
    return job


def work(federation: Federation, *pis: Pi, times: int = 1) -> list[str]:
    """Let these devices do what they are offered, the server keeping up."""
    tasks = []
    for _ in range(times):
        for pi in pis:
            tasks += pi.work()
            federation.work_off()
    return tasks


def version(job: Job, number: int) -> Round:
    return job.rounds.get(number=number, attempt=job.rounds.filter(number=number).count())


@pytest.mark.postgresql
def test_asynchronous_job_completes(federation: Federation) -> None:
    federation.devices("pi-a", "pi-b", "pi-c")
    job = federation.run(federation.launch(rounds=4, participation=BUFFERED))
    assert (job.phase, job.reason) == ("completed", "")
    assert [row.phase for row in job.rounds.all()] == ["closed"] * 5
    assert [len(row.fold["updates"]) for row in job.rounds.filter(number__gte=1)] == [2] * 4
    last = version(job, 4)
    assert last.evaluation["devices"] == 3
    assert job.global_artefact_id == last.global_artefact_id
    remaining = Assignment.objects.filter(
        round__job=job, phase__in=["training", "offered", "reported"]
    )
    assert not remaining.exists()


def test_slow_device_delays_nobody(federation: Federation) -> None:
    kitchen, porch, slow = federation.devices("pi-a", "pi-b", "pi-slow")
    job = started(federation, rounds=9, evaluation={"every": 0})
    works = slow.take()
    work(federation, kitchen, porch, times=2)
    assert federation.round(job).number == 3
    assert phase_of(works["assignment"]) == "accepted", "it is left in peace"
    slow.finish(works)
    federation.work_off()
    work(federation, kitchen)
    third = version(job, 3)
    assert third.phase == "closed"
    stale, fresh = third.fold["updates"]
    assert (stale["slot"], stale["base"], stale["staleness"]) == (2, 1, 2)
    assert (fresh["slot"], fresh["base"], fresh["staleness"]) == (0, 2, 1)
    row = Assignment.objects.get(pk=works["assignment"])
    assert (row.phase, row.buffered_in, row.round.number) == ("folded", 3, 1)


def test_early_device_trains_again_on_same_version(
    federation: Federation,
) -> None:
    kitchen, porch = federation.devices("pi-a", "pi-b")
    job = started(federation, rounds=2, evaluation={"every": 0})
    first = kitchen.take()
    kitchen.finish(first)
    federation.work_off()
    again = kitchen.take()
    assert (again["round"], again["attempt"], again["draw"]) == (1, 2, 1)
    assert first["draw"] == 0 and again["deadline_at"] is None
    kitchen.finish(again)
    federation.work_off()
    assert [item["slot"] for item in version(job, 1).fold["updates"]] == [0, 0]
    del porch


def test_stale_update_is_weighted(federation: Federation) -> None:
    """Deltas 1 and 2 of 40 examples each; the second is one version old and counts half."""
    from tests.device import weights

    kitchen, porch = federation.devices("pi-a", "pi-b")
    rule = {"staleness_discount": "polynomial", "staleness_exponent": 1.0, "buffer_size": 1}
    job = started(federation, part=rule, rounds=3, evaluation={"every": 0, "initial": False})
    start = weights(version(job, 1).base_artefact_id)
    works = porch.take()
    work(federation, kitchen)
    one = weights(version(job, 1).global_artefact_id)
    name = next(iter(start))
    assert (one[name] - start[name]).flatten()[0].item() == pytest.approx(1.0, abs=1e-5)
    porch.finish(works)
    federation.work_off()
    two = weights(version(job, 2).global_artefact_id)
    assert (two[name] - one[name]).flatten()[0].item() == pytest.approx(2.0 / 2, abs=1e-5)
    (update,) = version(job, 2).fold["updates"]
    assert (update["staleness"], update["discount"]) == (1, 0.5)


def test_too_old_update_is_discarded(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-a", "pi-b")
    rule = {"buffer_size": 1, "max_staleness": 1}
    job = started(federation, part=rule, rounds=9, evaluation={"every": 0})
    works = porch.take()
    work(federation, kitchen, times=2)
    reason = "it started 2 versions ago; at most 1 are allowed"
    assert phase_of(works["assignment"]) == "expired"
    assert porch.cancels() == {works["assignment"]: reason}
    assert porch.report(works["assignment"], None).status_code == 409
    assert porch.take()["round"] == federation.round(job).number, "it gets new work"


def test_evaluations_wait_for_free_devices(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-a", "pi-b")
    job = started(federation, part={"buffer_size": 1}, rounds=9)
    works = porch.take()
    assert work(federation, kitchen) == ["train"]
    assert version(job, 1).phase == "closed" and version(job, 1).evaluation == {}
    assert work(federation, kitchen) == ["evaluate"]
    assert version(job, 1).evaluation["devices"] == 1
    porch.finish(works)  # makes version 2; while it is folded, version 1 is the newest
    federation.work_off()
    assert work(federation, porch) == ["evaluate"]
    assert version(job, 1).evaluation["devices"] == 2
    offered = porch.take()
    assert (offered["task"], offered["round"]) == ("evaluate", 2)
    assert offered["global"]["sha256"] == version(job, 2).global_artefact_id


def test_buffer_survives_a_pause(federation: Federation) -> None:
    kitchen, porch, attic = federation.devices("pi-a", "pi-b", "pi-c")
    job = started(federation, part={"buffer_size": 3}, rounds=2, evaluation={"every": 0})
    works = attic.take()
    work(federation, kitchen, porch)
    services.move(job.pk, "pause", None)
    federation.work_off()
    assert attic.cancels()[works["assignment"]] == "the job was paused"
    services.move(job.pk, "resume", None)
    federation.work_off()
    assert (federation.round(job).number, federation.round(job).attempt) == (1, 2)
    work(federation, attic)
    first = version(job, 1)
    assert [item["slot"] for item in first.fold["updates"]] == [0, 1, 2]
    assert federation.run(job).phase == "completed"


@pytest.mark.postgresql
def test_lost_or_repeated_message_changes_nothing(federation: Federation) -> None:
    from workers.aggregate import tasks as aggregate

    kitchen, porch = federation.devices("pi-a", "pi-b")
    job = started(federation, rounds=2, evaluation={"every": 0})
    kitchen.work()
    porch.work()
    federation.outbox.site.clear()
    federation.reconcile()
    first = version(job, 1)
    assert first.phase == "closed"
    aggregate.aggregate(first.pk)
    federation.reconcile()
    assert version(job, 1).fold == first.fold
    assert federation.run(job).phase == "completed"


def test_silent_device_gets_newest_version(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-a", "pi-b")
    job = started(federation, part={"buffer_size": 1}, rounds=9, evaluation={"every": 0})
    works = porch.take()
    work(federation, kitchen)
    federation.later(LEASE_S + 1)
    federation.reconcile()
    assert phase_of(works["assignment"]) == "expired"
    assert porch.take()["round"] == 2
    del job


def test_invalid_update_is_refused_and_replaced(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-a", "pi-b")
    job = started(federation, part={"buffer_size": 1}, rounds=2, evaluation={"every": 0})
    bad = kitchen.take()
    content = kitchen.update_for(bad, number=float("nan"))
    kitchen.upload(bad["assignment"], content)
    kitchen.report(bad["assignment"], content)
    federation.work_off()
    assert phase_of(bad["assignment"]) == "refused"
    assert federation.round(job).phase == "collecting"
    assert "NaN" in federation.round(job).reason
    work(federation, porch)
    assert version(job, 1).phase == "closed"


def test_deadline_folds_a_partial_buffer(federation: Federation) -> None:
    kitchen, porch, attic = federation.devices("pi-a", "pi-b", "pi-c")
    job = started(federation, part={"buffer_size": 3}, rounds=2, evaluation={"every": 0})
    work(federation, kitchen)
    federation.later(DEADLINE_S + 1)
    federation.reconcile()
    assert version(job, 1).phase == "closed"
    assert len(version(job, 1).fold["updates"]) == 1
    del porch, attic


def test_page_shows_buffer_fill(federation: Federation) -> None:
    kitchen, porch, attic = federation.devices("pi-a", "pi-b", "pi-c")
    job = started(federation, part={"buffer_size": 3}, rounds=2, evaluation={"every": 0})
    works = attic.take()
    work(federation, kitchen, porch)
    attic.presence(works["assignment"])
    job.refresh_from_db()
    result = snapshot.snapshot(job)
    assert result["headline"].startswith("2 of 3 updates in the buffer; 3 training: pi-")
    assert result["buffer"] == {"size": 3, "held": 2}
    assert result["progress"] == pytest.approx(0.75 * 2 / 3 / 2)
    attic.finish(works)
    federation.work_off()
    first = snapshot.snapshot(job)["rounds"][1]
    assert [part["staleness"] for part in first["train"] if part["phase"] == "folded"] == [0, 0, 0]
    assert [item["slot"] for item in first["updates"]] == [0, 1, 2]


def test_artefacts_in_use_are_not_collected(federation: Federation) -> None:
    """A closed version is retained while a device trains from it or evaluates it."""
    from django.utils import timezone

    from webapp.jobs.artefacts.garbage_collection import facts

    kitchen, porch = federation.devices("pi-a", "pi-b")
    job = started(federation, part={"buffer_size": 1}, rounds=9)
    works = porch.take()
    work(federation, kitchen)
    evaluating = kitchen.take()
    assert (evaluating["task"], evaluating["round"]) == ("evaluate", 1)

    def is_open(number: int) -> bool:
        return next(row.open for row in facts(job, timezone.now()).rounds if row.number == number)

    assert version(job, 1).phase == "closed" and is_open(1)
    porch.finish(works)
    federation.work_off()
    assert is_open(1), "it is still evaluated"
    kitchen.finish(evaluating)
    federation.work_off()
    work(federation, porch)
    assert not is_open(1)


def test_cancel_between_versions_stops_all(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-a", "pi-b")
    job = started(federation, part={"buffer_size": 1}, rounds=9, evaluation={"every": 0})
    works = porch.take()
    work(federation, kitchen)
    second = federation.round(job)
    assert second.number == 2
    second.delete()  # as if the coordinator had died before it was planned
    services.move(job.pk, "cancel", None)
    federation.work_off()
    assert phase_of(works["assignment"]) == "expired"
    assert porch.cancels() == {works["assignment"]: "the job was cancelled"}


def test_page_shows_work_on_older_model(federation: Federation) -> None:
    kitchen, porch = federation.devices("pi-a", "pi-b")
    job = started(federation, part={"buffer_size": 1}, rounds=9, evaluation={"every": 0})
    porch.take()
    work(federation, kitchen, times=2)
    job.refresh_from_db()
    result = {row["name"]: row["phase"] for row in snapshot.snapshot(job)["devices"]}
    assert result == {"pi-a": "offered", "pi-b": "accepted"}
