"""Local-only baselines: launch, repetition and compared scores."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, connections

from tests.federation import Federation
from webapp.accounts.models import User
from webapp.devices.models import Dataset, Device
from webapp.jobs.analysis import baseline_comparison, baseline_scores
from webapp.jobs.lifecycle import pinning, services
from webapp.jobs.models import Artefact, Event, Job

pytestmark = pytest.mark.django_db
NAMES = ("attic", "barn", "pi")


@pytest.fixture
def done(federation: Federation) -> Job:
    """A completed job of three devices, whose scales differ."""
    federation.devices(*NAMES)
    scales = {"rank": 2, "aggregation": "flexlora", "alphas": ["1", "barn=2"]}
    return finished(federation, adapter=scales)


def finished(federation: Federation, **changes: Any) -> Job:
    job = federation.launch(**changes)
    go_on(federation)
    job.refresh_from_db()
    assert job.phase == "completed", job.reason
    return job


def go_on(federation: Federation, passes: int = 8) -> None:
    """Devices and server take turns until nobody has anything left to do."""
    for _ in range(passes):
        federation.work_off()
        for pi in federation.pis:
            pi.work()
    federation.work_off()


def children(job: Job) -> list[Job]:
    return list(Job.objects.filter(alone_of=job).order_by("created_at"))


def states(job: Job) -> dict[str, str]:
    return {
        row["device"]: row["state"] for row in baseline_comparison.comparison_json(job)["devices"]
    }


def test_each_device_gets_a_baseline_with_its_slot(done: Job, operator: User) -> None:
    baseline_comparison.start_baseline(done.pk, operator)
    created = children(done)
    assert [child.name for child in created] == [f"a job: {name} alone" for name in NAMES]
    assert {child.phase for child in created} == {"queued"}
    mine = {row.device.name: row for row in done.participants.all()}
    for name, child in zip(NAMES, created, strict=True):
        (row,) = child.participants.all()
        assert (row.device.name, row.slot) == (name, mine[name].slot)
        assert (row.dataset, row.examples) == (mine[name].dataset, mine[name].examples)
        assert row.tailoring == mine[name].tailoring and row.tailoring["adapter.alpha"] in (1, 2)
        assert child.job_spec.participation.devices == (name,)
        assert child.created_by == operator
    assert "training alone" in Event.objects.filter(job=done).order_by("-seq")[0].text


def test_baselines_run_and_are_compared(federation: Federation, done: Job) -> None:
    assert states(done) == dict.fromkeys(NAMES, "not asked")
    assert baseline_comparison.comparison_json(done)["cost_s"] == pytest.approx(2.0)
    baseline_comparison.start_baseline(done.pk, None)
    result = baseline_comparison.comparison_json(done)
    assert result["open"] and result["asked"] and not result["can_ask"]
    assert result["summary"] == {"shared": None, "own": None}
    go_on(federation)
    assert {child.phase for child in children(done)} == {"completed"}
    result = baseline_comparison.comparison_json(done)
    assert not result["open"] and not result["can_ask"]
    for row in result["devices"]:
        assert row["state"] == "completed" and row["progress"] == 1.0
        assert row["alone"] == row["shared"] == {"rougeL": 25.0, "loss": 2.0}
        assert row["gain"] == {"rougeL": 0.0, "loss": 0.0} and row["own"] is None
    assert result["summary"]["shared"]["devices"] == 3
    assert result["summary"]["shared"]["gained"] == 0


def test_gains_compare_last_round_on_same_examples(federation: Federation, done: Job) -> None:
    baseline_comparison.start_baseline(done.pk, None)
    go_on(federation)
    attic, barn, pi = children(done)
    personal = {"personal_rougeL": 31.0, "personal_loss": 1.0}
    measured(done, "attic", {"rougeL": 30.0, "loss": 1.5} | personal)
    measured(attic, "attic", {"rougeL": 28.0, "loss": 1.75})
    measured(barn, "barn", {"rougeL": 26.0, "loss": 2.5})
    measured(pi, "pi", {"rougeL": 99.0, "loss": 0.1}, examples=7)
    rows = {row["device"]: row for row in baseline_comparison.comparison_json(done)["devices"]}
    assert rows["attic"]["gain"] == {"rougeL": 2.0, "loss": 0.25}
    assert rows["attic"]["own_gain"] == {"rougeL": 3.0, "loss": 0.75}
    assert rows["barn"]["gain"] == {"rougeL": -1.0, "loss": 0.5}
    assert rows["pi"]["gain"] is None and rows["pi"]["alone"] is None
    assert "evaluated on 7 examples now, on 6 then" in rows["pi"]["reason"]
    both = baseline_comparison.comparison_json(done)["summary"]
    assert both["shared"] == {
        "devices": 2, "mean": 0.5, "mean_loss": 0.375, "worst": -1.0, "worst_device": "barn",
        "gained": 1,
    }  # fmt: skip
    assert both["own"]["devices"] == 1
    assert baseline_scores.gains(done) == {0: 3.0, 1: -1.0}, "of the model a device uses"


def measured(job: Job, device: str, scores: dict[str, float], examples: int = 6) -> None:
    """Write other scores into a device's evaluation of the last round."""
    (part,) = job.rounds.get(number=1).assignments.filter(task="evaluate", device__name=device)
    part.metrics, part.examples = {**part.metrics, **scores}, examples
    part.save(update_fields=["metrics", "examples"])


@pytest.mark.postgresql
def test_baseline_request_is_idempotent(federation: Federation, done: Job) -> None:
    baseline_comparison.start_baseline(done.pk, None)
    before = [child.pk for child in children(done)]
    baseline_comparison.start_baseline(done.pk, None)
    go_on(federation)
    baseline_comparison.start_baseline(done.pk, None)
    assert [child.pk for child in children(done)] == before
    starts = Event.objects.filter(job=done, text__contains="local-only baseline").count()
    assert starts == 1


def test_failed_baseline_is_retried_cancelled_one_relaunched(
    federation: Federation, done: Job, operator: User
) -> None:
    baseline_comparison.start_baseline(done.pk, operator)
    attic, barn, pi = children(done)
    services.move(barn.pk, "cancel", operator)
    federation.work_off()
    Job.objects.filter(pk=attic.pk).update(phase="failed", reason="the disk is full")
    result = baseline_comparison.comparison_json(done)
    row = result["devices"][0]
    assert (row["state"], row["reason"], row["can_ask"]) == ("failed", "The disk is full", True)
    assert result["can_ask"] and states(done)["barn"] == "cancelled"
    baseline_comparison.start_baseline(done.pk, operator)
    created = children(done)
    assert [child.pk for child in created[:3]] == [attic.pk, barn.pk, pi.pk] and len(created) == 4
    assert [child.phase for child in created] == ["queued", "cancelled", created[2].phase, "queued"]
    go_on(federation)
    assert states(done) == dict.fromkeys(NAMES, "completed")


def test_unavailable_devices_are_listed_others_train(done: Job) -> None:
    gone, moved, _ = Device.objects.order_by("name")
    Device.objects.filter(pk=gone.pk).update(revoked_at=done.created_at)
    Dataset.objects.filter(device=moved).update(name="clinic")
    baseline_comparison.start_baseline(done.pk, None)
    rows = {row["device"]: row for row in baseline_comparison.comparison_json(done)["devices"]}
    assert rows["attic"]["reason"] == "attic is revoked" and rows["attic"]["state"] == "gone"
    assert rows["barn"]["reason"] == "barn no longer has the dataset law"
    assert rows["pi"]["state"] == "queued" and len(children(done)) == 1


def test_baseline_is_refused_without_devices(done: Job) -> None:
    Device.objects.update(revoked_at=done.created_at)
    with pytest.raises(services.MoveRefused, match="attic is revoked; barn is revoked; pi is"):
        baseline_comparison.start_baseline(done.pk, None)
    assert not baseline_comparison.comparison_json(done)["can_ask"]


def test_incomparable_jobs_give_a_reason(federation: Federation, done: Job) -> None:
    baseline_comparison.start_baseline(done.pk, None)
    child = children(done)[0]
    with pytest.raises(services.MoveRefused, match="this is itself a local-only baseline"):
        baseline_comparison.start_baseline(child.pk, None)
    other = federation.launch()
    other.refresh_from_db()
    with pytest.raises(services.MoveRefused, match="a running job cannot be compared"):
        baseline_comparison.start_baseline(other.pk, None)
    result = baseline_comparison.comparison_json(other)
    assert result["refused"].startswith("a running job") and result["devices"] == []
    Job.objects.filter(pk=other.pk).update(phase="completed")
    with pytest.raises(services.MoveRefused, match="no device evaluated the model of the last"):
        baseline_comparison.start_baseline(other.pk, None)
    spec = {**other.spec, "method": {"name": "agglomerative"}}
    Job.objects.filter(pk=other.pk).update(spec=spec)
    with pytest.raises(services.MoveRefused, match="agglomerative devices learn"):
        baseline_comparison.start_baseline(other.pk, None)
    assert not children(other)


def test_device_missing_in_last_round_has_no_gain(federation: Federation, done: Job) -> None:
    done.rounds.get(number=1).assignments.filter(task="evaluate", device__name="pi").delete()
    baseline_comparison.start_baseline(done.pk, None)
    go_on(federation)
    rows = {row["device"]: row for row in baseline_comparison.comparison_json(done)["devices"]}
    assert rows["pi"]["gain"] is None and rows["pi"]["alone"] is not None
    assert rows["pi"]["reason"] == "Did not evaluate the model of the last round"
    assert rows["barn"]["gain"] is not None


@pytest.mark.postgresql
def test_baselines_are_deleted_with_their_job(
    federation: Federation, done: Job, admin: User
) -> None:
    baseline_comparison.start_baseline(done.pk, None)
    with pytest.raises(services.MoveRefused, match="local-only baselines still run"):
        pinning.delete_job(done.pk, admin)
    go_on(federation)
    models = {child.global_artefact_id for child in children(done)}
    pinning.delete_job(done.pk, admin)
    assert not Job.objects.exists()
    assert not Artefact.objects.filter(pk__in=models, marked_at=None).exists()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_concurrent_requests_start_one_baseline_per_device(
    federation: Federation, done: Job
) -> None:
    start = threading.Barrier(4)
    wrong: list[Exception] = []

    def person() -> None:
        start.wait()
        try:
            baseline_comparison.start_baseline(done.pk, None)
        except Exception as error:  # raised below, in the test's thread
            wrong.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=person) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert len(children(done)) == 3, connection.vendor
