"""The comparison with training alone on a job's page, in the list of jobs and in the report."""

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
def done(fleet: list[Device]) -> Job:
    """A completed job, whose last model was measured by all three devices."""
    job = factories.make_job(fleet, rounds=1)
    for number in range(2):
        factories.add_round(job, number, job.created_at)
    factories.finish(job)
    job.refresh_from_db()
    return job


def ask(job: Job) -> list[Job]:
    baseline_comparison.start_baseline(job.pk, None)
    return list(Job.objects.filter(alone_of=job).order_by("participants__slot"))


def complete(child: Job, **scores: float) -> None:
    factories.add_round(child, 1, child.created_at)
    part = Assignment.objects.get(round__job=child, task="evaluate")
    part.metrics.update(scores)
    part.save(update_fields=["metrics"])
    factories.finish(child)


def section(client: Client, job: Job, was: str = "") -> str:
    answer = client.get(reverse("job-alone", args=[job.pk]), {"was": was})
    return answer.content.decode()


def test_before_anybody_asks_it_says_what_it_costs(ada: Client, done: Job) -> None:
    page = ada.get(reverse("job", args=[done.pk])).content.decode()
    assert "about as long as the job's training" in page and "on the slowest device" in page
    assert "Compare with training alone</button>" in page and "every 3s" not in page
    assert "Nothing is averaged" in page


def test_a_viewer_sees_no_button_and_may_not_ask(as_role: Callable[..., Client], done: Job) -> None:
    viewer = as_role("viewer")
    assert "An operator can start it" in section(viewer, done)
    assert viewer.post(reverse("job-alone", args=[done.pk])).status_code == 403
    assert not Job.objects.filter(alone_of=done).exists()


def test_asking_shows_states_that_redraw_themselves(
    as_role: Callable[..., Client], done: Job
) -> None:
    operator = as_role("operator")
    answer = operator.post(reverse("job-alone", args=[done.pk]))
    assert answer.status_code == 302 and answer["Location"].endswith("#alone")
    shown = section(operator, done)
    assert shown.count('data-tone="wait">queued') == 3 and "every 3s" in shown
    mark = baseline_comparison.etag(baseline_comparison.comparison_json(done))
    path = reverse("job-alone", args=[done.pk])
    assert operator.get(path, {"was": mark}).status_code == 204
    child = Job.objects.filter(alone_of=done).first()
    assert child is not None
    factories.finish(child, "failed", "the disk is full")
    changed = operator.get(path, {"was": mark})
    assert changed.status_code == 200 and "The disk is full" in changed.content.decode()
    assert "Retry missing devices" in changed.content.decode()


def test_gains_stand_beside_the_scores(ada: Client, done: Job) -> None:
    children = ask(done)
    mine = {
        row["slot"]: row["shared"]["rougeL"]
        for row in baseline_comparison.comparison_json(done)["devices"]
    }
    for slot, child in enumerate(children):
        complete(child, rougeL=mine[slot] - (slot - 0.5), loss=3.0)
    shown = section(ada, done)
    assert "2 of 3 devices gained from the shared model" in shown
    assert "mean ROUGE-L +0.5 points, worst -0.5 (pi-kitchen)" in shown
    assert '<span class="gain">+1.5</span>' in shown and "every 3s" not in shown
    own = ada.get(reverse("job", args=[children[0].pk])).content.decode()
    assert "for comparison with" in own and reverse("job", args=[done.pk]) in own
    told = ada.get(reverse("job-report", args=[done.pk])).content.decode()
    assert "+1.5 over training alone" in told


def test_the_report_says_whether_it_was_worth_it(done: Job) -> None:
    assert "gain_over_alone" not in {one.key for one in report(done).findings}
    mine = {
        row["slot"]: row["shared"]["rougeL"]
        for row in baseline_comparison.comparison_json(done)["devices"]
    }
    for slot, child in enumerate(ask(done)):
        complete(child, rougeL=mine[slot] - 2.0)
    found = {one.key: one for one in report(done).findings}
    assert found["gain_over_alone"].severity == "good"
    assert "For 3 of 3 devices" in found["gain_over_alone"].sentence


def test_lists_hold_the_compared_job_alone_with_a_mark(ada: Client, done: Job) -> None:
    names = [child.name for child in ask(done)]
    for path in ("jobs", "overview", "devices-compare"):
        page = ada.get(reverse(path)).content.decode()
        assert not any(f">{name}<" in page for name in names), path
    assert "local-only baseline" in ada.get(reverse("jobs")).content.decode()
    assert "3 devices are training alone" in ada.get(reverse("overview")).content.decode()


def test_a_job_that_is_not_over_shows_nothing_until_it_is(ada: Client, job: Job) -> None:
    page = ada.get(reverse("job", args=[job.pk])).content.decode()
    assert 'data-awaits="completed"' in page and "Compare with training alone" not in page
    answer = ada.post(reverse("job-alone", args=[job.pk]), follow=True).content.decode()
    assert "A running job cannot be compared with training alone" in answer


def test_the_section_takes_as_many_queries_for_many_devices(
    ada: Client, django_assert_max_num_queries: Callable[..., object]
) -> None:
    job = factories.make_job(factories.make_fleet(12), rounds=1)
    for number in range(2):
        factories.add_round(job, number, job.created_at)
    factories.finish(job)
    for child in ask(job)[:6]:
        complete(child, rougeL=10.0)
    with django_assert_max_num_queries(14):  # type: ignore[attr-defined]
        assert "6 of" in section(ada, job) or "of 6 devices" in section(ada, job)
