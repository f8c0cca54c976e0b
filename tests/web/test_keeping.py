"""Pinning a round's model and deleting a job on the page."""

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
def made(job: Job) -> Round:
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


def test_the_page_lists_models_and_pins_them(ada: Client, job: Job, made: Round) -> None:
    pin = reverse("round-pin", args=[made.pk, "pin"])
    assert pin in _page(ada, job)
    assert ada.post(pin).status_code == 302
    made.refresh_from_db()
    assert made.pinned_at is not None
    page = _page(ada, job)
    assert reverse("round-pin", args=[made.pk, "unpin"]) in page and pin not in page


def test_a_job_of_before_a_rule_stays_readable(ada: Client, job: Job) -> None:
    """A combination that a later version refuses was accepted when the job was made."""
    job.spec["method"]["restraint"] = 2.0
    with pytest.raises(SpecError, match="is only for the method fedjudge"):
        parse_spec(job.spec)
    job.save(update_fields=["spec"])
    for name in ("job", "job-report", "api-job-detail"):
        key = {"pk": job.pk} if name.startswith("api") else {"job_id": job.pk}
        assert ada.get(reverse(name, kwargs=key)).status_code == 200, name


def test_a_viewer_sees_models_but_no_buttons(
    as_role: Callable[[str], Client], job: Job, made: Round
) -> None:
    viewer = as_role("viewer")
    page = _page(viewer, job)
    assert "abababababab" in page
    assert "round-pin" not in page and f"/rounds/{made.pk}/" not in page
    refused = viewer.post(reverse("round-pin", args=[made.pk, "pin"]))
    assert refused.status_code == 403


def test_a_removed_model_says_since_when(ada: Client, job: Job, made: Round) -> None:
    Artefact.objects.update(removed_at=timezone.now())
    assert f"removed on {timezone.now():%Y-%m-%d}" in _page(ada, job)
    answer = ada.post(reverse("round-pin", args=[made.pk, "pin"]), follow=True)
    assert "These bytes were removed on" in answer.content.decode()


def test_only_a_job_that_is_over_can_be_deleted(ada: Client, job: Job) -> None:
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


def test_an_operator_deletes_nothing(as_role: Callable[[str], Client], job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(phase="completed")
    operator = as_role("operator")
    assert reverse("job-delete", args=[job.pk]) not in _page(operator, job)
    assert operator.post(reverse("job-delete", args=[job.pk])).status_code == 403
    assert Job.objects.filter(pk=job.pk).exists()
