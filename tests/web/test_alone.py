"""The local-only baseline on the job page, in the job list and in the report."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from tests.web import factories
from webapp.devices.models import Device
from webapp.jobs.analysis import baseline_comparison
from webapp.jobs.models import Assignment, Job
from webapp.jobs.report.job_report import report


@pytest.fixture
def finished_job(fleet: list[Device]) -> Job:
    """A completed job whose last model was evaluated by all three devices."""
    job = factories.make_job(fleet, rounds=1)
    for number in range(2):
        factories.add_round(job, number, job.created_at)
    factories.finish(job)
    job.refresh_from_db()
    return job


def start_baselines(job: Job) -> list[Job]:
    baseline_comparison.start_baseline(job.pk, None)
    return list(Job.objects.filter(alone_of=job).order_by("participants__slot"))


def finish_baseline(child: Job, **scores: float) -> None:
    factories.add_round(child, 1, child.created_at)
    part = Assignment.objects.get(round__job=child, task="evaluate")
    part.metrics.update(scores)
    part.save(update_fields=["metrics"])
    factories.finish(child)


def section_html(client: Client, job: Job, was: str = "") -> str:
    answer = client.get(reverse("job-alone", args=[job.pk]), {"was": was})
    return answer.content.decode()


def test_baseline_offer_states_its_cost(ada: Client, finished_job: Job) -> None:
    page = ada.get(reverse("job", args=[finished_job.pk])).content.decode()
    assert "about as long as the job's training" in page and "on the slowest device" in page
    assert "Compare with training alone</button>" in page and "every 3s" not in page
    assert "Nothing is averaged" in page


def test_viewer_cannot_start_the_baseline(
    as_role: Callable[..., Client], finished_job: Job
) -> None:
    viewer = as_role("viewer")
    assert "An operator can start it" in section_html(viewer, finished_job)
    assert viewer.post(reverse("job-alone", args=[finished_job.pk])).status_code == 403
    assert not Job.objects.filter(alone_of=finished_job).exists()


def test_started_baseline_polls_its_state(
    as_role: Callable[..., Client], finished_job: Job
) -> None:
    operator = as_role("operator")
    answer = operator.post(reverse("job-alone", args=[finished_job.pk]))
    assert answer.status_code == 302 and answer["Location"].endswith("#alone")
    text = section_html(operator, finished_job)
    assert text.count('data-tone="wait">queued') == 3 and "every 3s" in text
    mark = baseline_comparison.etag(baseline_comparison.comparison_json(finished_job))
    path = reverse("job-alone", args=[finished_job.pk])
    assert operator.get(path, {"was": mark}).status_code == 204
    child = Job.objects.filter(alone_of=finished_job).first()
    assert child is not None
    factories.finish(child, "failed", "the disk is full")
    changed = operator.get(path, {"was": mark})
    assert changed.status_code == 200 and "The disk is full" in changed.content.decode()
    assert "Retry missing devices" in changed.content.decode()


def test_gains_are_shown_next_to_the_scores(ada: Client, finished_job: Job) -> None:
    children = start_baselines(finished_job)
    shared_scores = {
        row["slot"]: row["shared"]["rougeL"]
        for row in baseline_comparison.comparison_json(finished_job)["devices"]
    }
    for slot, child in enumerate(children):
        finish_baseline(child, rougeL=shared_scores[slot] - (slot - 0.5), loss=3.0)
    text = section_html(ada, finished_job)
    assert "2 of 3 devices gained from the shared model" in text
    assert "mean ROUGE-L +0.5 points, worst -0.5 (pi-kitchen)" in text
    assert '<span class="gain">+1.5</span>' in text and "every 3s" not in text
    child_page = ada.get(reverse("job", args=[children[0].pk])).content.decode()
    assert "for comparison with" in child_page
    assert reverse("job", args=[finished_job.pk]) in child_page
    report_page = ada.get(reverse("job-report", args=[finished_job.pk])).content.decode()
    assert "+1.5 over training alone" in report_page


def test_report_judges_the_gain_over_training_alone(finished_job: Job) -> None:
    assert "gain_over_alone" not in {finding.key for finding in report(finished_job).findings}
    shared_scores = {
        row["slot"]: row["shared"]["rougeL"]
        for row in baseline_comparison.comparison_json(finished_job)["devices"]
    }
    for slot, child in enumerate(start_baselines(finished_job)):
        finish_baseline(child, rougeL=shared_scores[slot] - 2.0)
    findings = {finding.key: finding for finding in report(finished_job).findings}
    assert findings["gain_over_alone"].severity == "good"
    assert "3 of 3 devices" in findings["gain_over_alone"].sentence


def test_lists_hide_baseline_jobs(ada: Client, finished_job: Job) -> None:
    names = [child.name for child in start_baselines(finished_job)]
    for path in ("jobs", "overview", "devices-compare"):
        page = ada.get(reverse(path)).content.decode()
        assert not any(f">{name}<" in page for name in names), path
    assert "local-only baseline" in ada.get(reverse("jobs")).content.decode()
    assert "3 devices are training alone" in ada.get(reverse("overview")).content.decode()


def test_running_job_offers_no_baseline(ada: Client, job: Job) -> None:
    page = ada.get(reverse("job", args=[job.pk])).content.decode()
    assert 'data-awaits="completed"' in page and "Compare with training alone" not in page
    answer = ada.post(reverse("job-alone", args=[job.pk]), follow=True).content.decode()
    assert "A running job cannot be compared with training alone" in answer


def test_baseline_queries_do_not_grow_with_devices(
    ada: Client, django_assert_max_num_queries: Callable[..., object]
) -> None:
    job = factories.make_job(factories.make_fleet(12), rounds=1)
    for number in range(2):
        factories.add_round(job, number, job.created_at)
    factories.finish(job)
    for child in start_baselines(job)[:6]:
        finish_baseline(child, rougeL=10.0)
    with django_assert_max_num_queries(14):  # type: ignore[attr-defined]
        assert "6 of" in section_html(ada, job) or "of 6 devices" in section_html(ada, job)
