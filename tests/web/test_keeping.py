"""Pinning models and deleting jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fedcore.errors import SpecError
from fedcore.spec.parse import parse_spec
from webapp.jobs.models import Artefact, ArtefactKind, Job, Round


@pytest.fixture
def round_row(job: Job) -> Round:
    """The job's first round, with a model."""
    artefact = Artefact.objects.create(
        sha256="ab" * 32, size_bytes=1, kind=ArtefactKind.GLOBAL, origin="aggregate"
    )
    row = Round.objects.filter(job=job).order_by("number").first()
    assert row is not None
    Round.objects.filter(pk=row.pk).update(global_artefact=artefact)
    return row


def _page(client: Client, job: Job) -> str:
    return client.get(reverse("job", args=[job.pk])).content.decode()


def test_job_page_pins_models(ada: Client, job: Job, round_row: Round) -> None:
    pin = reverse("round-pin", args=[round_row.pk, "pin"])
    assert pin in _page(ada, job)
    assert ada.post(pin).status_code == 302
    round_row.refresh_from_db()
    assert round_row.pinned_at is not None
    page = _page(ada, job)
    assert reverse("round-pin", args=[round_row.pk, "unpin"]) in page and pin not in page


def test_job_of_an_older_version_stays_readable(ada: Client, job: Job) -> None:
    """The job's options were valid when it was created; a later version refuses them."""
    job.spec["method"]["restraint"] = 2.0
    with pytest.raises(SpecError, match="is only for the method fedjudge"):
        parse_spec(job.spec)
    job.save(update_fields=["spec"])
    for name in ("job", "job-report", "api-job-detail"):
        key = {"pk": job.pk} if name.startswith("api") else {"job_id": job.pk}
        assert ada.get(reverse(name, kwargs=key)).status_code == 200, name


def test_viewer_sees_models_without_buttons(
    as_role: Callable[[str], Client], job: Job, round_row: Round
) -> None:
    viewer = as_role("viewer")
    page = _page(viewer, job)
    assert "abababababab" in page
    assert "round-pin" not in page and f"/rounds/{round_row.pk}/" not in page
    refused = viewer.post(reverse("round-pin", args=[round_row.pk, "pin"]))
    assert refused.status_code == 403


def test_removed_model_shows_its_removal_date(ada: Client, job: Job, round_row: Round) -> None:
    Artefact.objects.update(removed_at=timezone.now())
    assert f"removed on {timezone.now():%Y-%m-%d}" in _page(ada, job)
    answer = ada.post(reverse("round-pin", args=[round_row.pk, "pin"]), follow=True)
    assert "These bytes were removed on" in answer.content.decode()


def test_only_finished_jobs_can_be_deleted(ada: Client, job: Job) -> None:
    delete = reverse("job-delete", args=[job.pk])
    assert delete not in _page(ada, job)
    answer = ada.post(delete, follow=True)
    assert "A running job cannot be deleted; cancel it first" in answer.content.decode()
    Job.objects.filter(pk=job.pk).update(phase="completed")
    Round.objects.filter(job=job).update(phase="closed")
    page = _page(ada, job)
    assert delete in page and "deleted permanently" in page
    answer = ada.post(delete, follow=True)
    assert "has been deleted" in answer.content.decode()
    assert not Job.objects.filter(pk=job.pk).exists()


def test_operator_cannot_delete_jobs(as_role: Callable[[str], Client], job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(phase="completed")
    operator = as_role("operator")
    assert reverse("job-delete", args=[job.pk]) not in _page(operator, job)
    assert operator.post(reverse("job-delete", args=[job.pk])).status_code == 403
    assert Job.objects.filter(pk=job.pk).exists()
