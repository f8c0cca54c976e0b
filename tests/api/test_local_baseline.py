"""Local-only baselines over the REST API."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from webapp.devices.models import Device
from webapp.jobs.models import Assignment, Job

SCORES = {"loss": 2.0, "rouge1": 30.0, "rouge2": 10.0, "rougeL": 25.0}


@pytest.fixture
def done(fleet: Any) -> Job:
    """The fleet's job, completed, its last model measured by both devices."""
    job: Job = fleet["job"]
    Job.objects.filter(pk=job.pk).update(phase="completed", spec={**job.spec, "rounds": 1})
    for slot, device in enumerate(fleet["devices"]):
        Assignment.objects.create(
            round=fleet["round"], device=device, slot=slot, task="evaluate", phase="folded",
            lease_until=timezone.now(), examples=6, metrics=SCORES,
        )  # fmt: skip
    return job


def address(job: Job) -> str:
    return f"/api/v1/jobs/{job.pk}/alone/"


def test_request_starts_one_baseline_per_device(operator_api: Any, done: Job) -> None:
    before = operator_api.get(address(done)).json()
    assert (before["asked"], before["can_ask"], before["open"]) == (False, True, False)
    assert [row["state"] for row in before["devices"]] == ["not asked"] * 2
    assert before["devices"][0]["shared"] == {"rougeL": 25.0, "loss": 2.0}
    for _ in range(2):
        answer = operator_api.post(address(done))
        assert answer.status_code == 200
        body = answer.json()
        assert (body["asked"], body["can_ask"], body["open"]) == (True, False, True)
        assert [row["state"] for row in body["devices"]] == ["queued"] * 2
    assert Job.objects.filter(alone_of=done).count() == 2


def test_list_hides_baselines(operator_api: Any, done: Job) -> None:
    operator_api.post(address(done))
    listed = operator_api.get("/api/v1/jobs/").json()["results"]
    assert [row["id"] for row in listed] == [str(done.pk)] and listed[0]["alone_of"] is None
    mine = operator_api.get(f"/api/v1/jobs/?alone_of={done.pk}").json()["results"]
    assert {row["alone_of"] for row in mine} == {str(done.pk)} and len(mine) == 2
    assert operator_api.get(f"/api/v1/jobs/{mine[0]['id']}/").status_code == 200
    assert operator_api.get("/api/v1/jobs/?alone_of=pi").status_code == 400


def test_cancelled_baseline_can_be_requested_again(operator_api: Any, done: Job) -> None:
    operator_api.post(address(done))
    child = operator_api.get(address(done)).json()["devices"][0]["alone_job"]
    assert operator_api.post(f"/api/v1/jobs/{child}/cancel/").status_code == 200
    row = operator_api.get(address(done)).json()["devices"][0]
    assert row["state"] == "cancelled" and row["reason"].startswith("Cancelled by operator")
    again = operator_api.post(address(done)).json()["devices"][0]
    assert again["state"] == "queued" and again["alone_job"] != child


def test_incomparable_job_is_409(operator_api: Any, fleet: Any) -> None:
    answer = operator_api.post(address(fleet["job"]))
    assert answer.status_code == 409
    assert answer.json()["detail"] == (
        "a running job cannot be compared with training alone; that needs a job that is completed"
    )
    assert operator_api.get(address(fleet["job"])).json()["refused"] == answer.json()["detail"]


def test_unavailable_devices_are_409_or_listed(operator_api: Any, done: Job) -> None:
    kitchen, _ = Device.objects.order_by("name")
    Device.objects.filter(pk=kitchen.pk).update(revoked_at=timezone.now())
    rows = operator_api.post(address(done)).json()["devices"]
    assert (rows[0]["state"], rows[0]["reason"]) == ("gone", "pi-kitchen is revoked")
    Job.objects.filter(alone_of=done).delete()
    Device.objects.update(revoked_at=timezone.now())
    answer = operator_api.post(address(done))
    assert answer.status_code == 409 and "pi-porch is revoked" in answer.json()["detail"]


def test_delete_removes_baselines(admin_api: Any, done: Job) -> None:
    admin_api.post(address(done))
    answer = admin_api.delete(f"/api/v1/jobs/{done.pk}/")
    assert answer.status_code == 409 and "local-only baselines still run" in answer.json()["detail"]
    Job.objects.filter(alone_of=done).update(phase="cancelled")
    assert admin_api.delete(f"/api/v1/jobs/{done.pk}/").status_code == 204
    assert not Job.objects.exists()
