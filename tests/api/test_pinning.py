"""Pinned models, deleted jobs, and removed artefacts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from tests.api.conftest import V1, add_device, add_job
from webapp.jobs.models import Artefact, Event, Job, Round
from webapp.telemetry.models import Sample

pytestmark = pytest.mark.postgresql


@pytest.fixture
def job(db: None) -> Job:
    return add_job([add_device("pi-kitchen")], phase="completed")


def _round(job: Job) -> Round:
    return Round.objects.get(job=job)


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("operator", 200), ("admin", 200)])
def test_who_may_pin(
    client_of: Callable[[str], APIClient], job: Job, who: str, status: int
) -> None:
    row = _round(job)
    answer = client_of(who).post(f"{V1}/rounds/{row.pk}/pin/")
    assert answer.status_code == status
    row.refresh_from_db()
    assert (row.pinned_at is not None) is (status == 200)


def test_pin_and_unpin_are_idempotent(operator_api: APIClient, job: Job) -> None:
    row = _round(job)
    first = operator_api.post(f"{V1}/rounds/{row.pk}/pin/").json()["pinned_at"]
    assert first is not None
    assert operator_api.post(f"{V1}/rounds/{row.pk}/pin/").json()["pinned_at"] == first
    assert operator_api.post(f"{V1}/rounds/{row.pk}/unpin/").json()["pinned_at"] is None
    lines = Event.objects.filter(job=job, text__contains="pinned by").order_by("seq")
    assert [line.text for line in lines] == [
        "model of round 1 pinned by operator",
        "model of round 1 unpinned by operator",
    ]


def test_removed_model_cannot_be_pinned(operator_api: APIClient, job: Job) -> None:
    row = _round(job)
    gone = timezone.now()
    Artefact.objects.filter(pk=row.global_artefact_id).update(removed_at=gone)
    answer = operator_api.post(f"{V1}/rounds/{row.pk}/pin/")
    assert answer.status_code == 409
    assert f"removed on {gone:%Y-%m-%d %H:%M} UTC" in answer.json()["detail"]
    result = operator_api.get(f"{V1}/rounds/{row.pk}/").json()
    assert result["pinned_at"] is None and result["model_removed_at"] is not None


def test_round_without_a_model_cannot_be_pinned(operator_api: APIClient, job: Job) -> None:
    row = _round(job)
    Round.objects.filter(pk=row.pk).update(global_artefact=None)
    answer = operator_api.post(f"{V1}/rounds/{row.pk}/pin/")
    assert answer.status_code == 409
    assert "has no model to keep" in answer.json()["detail"]


def test_removed_artefact_is_410(viewer_api: APIClient, job: Job) -> None:
    sha256 = job.global_artefact_id
    Artefact.objects.filter(pk=sha256).update(removed_at=timezone.now())
    for path in (f"/artefacts/{sha256}/bytes/", f"/jobs/{job.pk}/download/adapter/?round=1"):
        answer = viewer_api.get(V1 + path)
        assert answer.status_code == 410, path
        assert "nothing needed them" in answer.json()["detail"]
    assert viewer_api.get(f"{V1}/artefacts/{sha256}/").json()["removed_at"] is not None


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("operator", 403), ("admin", 204)])
def test_who_may_delete_a_job(
    client_of: Callable[[str], APIClient], job: Job, who: str, status: int
) -> None:
    assert client_of(who).delete(f"{V1}/jobs/{job.pk}/").status_code == status
    assert Job.objects.filter(pk=job.pk).exists() is (status != 204)


def test_delete_removes_rows_and_frees_artefacts(admin_api: APIClient, job: Job) -> None:
    other = add_job([add_device("pi-porch")], name="another", phase="completed")
    sha256 = job.global_artefact_id
    assert admin_api.delete(f"{V1}/jobs/{job.pk}/").status_code == 204
    assert set(Round.objects.values_list("job_id", flat=True)) == {other.pk}
    assert not Event.objects.filter(job=job.pk).exists()
    assert Sample.objects.count() == 2
    assert Artefact.objects.get(pk=sha256).marked_at is not None
    assert Artefact.objects.get(pk=other.global_artefact_id).marked_at is None
    assert Event.objects.get(job=None).text == "job 'a job' deleted by admin"


@pytest.mark.parametrize("phase", ["queued", "running", "paused"])
def test_unfinished_job_cannot_be_deleted(admin_api: APIClient, job: Job, phase: str) -> None:
    Job.objects.filter(pk=job.pk).update(phase=phase)
    answer = admin_api.delete(f"{V1}/jobs/{job.pk}/")
    assert answer.status_code == 409
    assert answer.json()["detail"] == f"a {phase} job cannot be deleted; cancel it first"


def test_job_with_stopping_devices_cannot_be_deleted(admin_api: APIClient, job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(phase="cancelled")
    Round.objects.filter(job=job).update(phase="collecting")
    answer = admin_api.delete(f"{V1}/jobs/{job.pk}/")
    assert answer.status_code == 409
    assert "just stopping; try again in a moment" in answer.json()["detail"]
