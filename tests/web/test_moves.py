"""Pause, resume, cancel and retry on the job page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from webapp.jobs.models import Job


@pytest.mark.parametrize(("role", "code"), [("viewer", 403), ("operator", 302), ("admin", 302)])
def test_roles_that_may_change_a_job(
    as_role: Callable[[str], Client], job: Job, role: str, code: int
) -> None:
    answer = as_role(role).post(reverse("job-move", args=[job.pk, "pause"]))
    assert answer.status_code == code
    job.refresh_from_db()
    assert job.phase == ("paused" if code == 302 else "running")


def test_job_actions_follow_the_lifecycle(ada: Client, job: Job) -> None:
    for name, phase in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        ada.post(reverse("job-move", args=[job.pk, name]))
        job.refresh_from_db()
        assert job.phase == phase


def test_refused_action_gives_a_reason(ada: Client, job: Job) -> None:
    answer = ada.post(reverse("job-move", args=[job.pk, "retry"]), follow=True)
    assert "A running job cannot retry" in answer.content.decode()


def test_unknown_actions_and_get_change_nothing(ada: Client, job: Job) -> None:
    assert ada.post(reverse("job-move", args=[job.pk, "explode"])).status_code == 404
    assert ada.get(reverse("job-move", args=[job.pk, "cancel"])).status_code == 405
    job.refresh_from_db()
    assert job.phase == "running"
