"""The job report: each check fires in its case and stays silent in a near one."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.web import factories, measured
from webapp.devices.models import Device
from webapp.jobs.analysis.device_metrics import TrainingFigures
from webapp.jobs.models import Assignment, Job
from webapp.jobs.report.job_figures import DeviceFigures, JobFigures, gather
from webapp.jobs.report.job_report import CHECKS, judge, report

WORK = TrainingFigures(
    compute_s=60.0,
    download_s=8.0,
    upload_s=10.0,
    wait_s=2.0,
    phase_s={"load": 2.0, "forward": 20.0, "backward": 30.0, "optimizer": 5.0},
    tokens=9e4,
    mfu=0.2,
    peak_flops=1e12,
    precision="bf16",
    peak_memory_bytes=2e9,
    measured_j=900.0,
    compute_j=800.0,
    communication_j=80.0,
    waiting_j=20.0,
    up_bytes=4e6,
    down_bytes=4e6,
    at_socket=True,
    retransfer_bytes=0.0,
)
PI = DeviceFigures(
    name="pi",
    examples=100,
    offered=3,
    works=(WORK, WORK),
    trained_examples=200,
    idle_s=5.0,
    in_rounds_s=200.0,
    memory_bytes=8e9,
    peaks={"fp32": 5e11, "bf16": 1e12},
)
LESS = replace(WORK, reward=0.4, reward_before=0.5, reward_after=0.45)
PAID = replace(PI, works=(LESS, replace(WORK, reward_before=0.5, reward_after=0.6), WORK))
NUC = replace(PI, name="nuc", last_in=2)
# Nothing here is worth saying: shares in between, one update still out, no scores.
CALM = JobFigures(
    devices=(PI, NUC),
    rounds_closed=3,
    spec={"train": {"kernels": "fast", "batching": "random", "batch_size": 8}},
)


def job_with(**change: Any) -> JobFigures:
    """CALM with changes to its first device."""
    return replace(CALM, devices=(replace(PI, **change), NUC))


def working(**change: Any) -> JobFigures:
    work = replace(WORK, **change)
    return job_with(works=(work, work))


LOSER = {"lost": 2, "offered": 4, "reasons": ("out of memory",)}
# Of each check: where it fires, what its sentence says then, and a near case where it is silent.
CASES: dict[str, tuple[JobFigures, str, JobFigures]] = {
    "used_well": (working(mfu=0.6), "On pi training reached 60.0 %", working(mfu=0.29)),
    "mostly_computing": (
        replace(CALM, devices=(replace(PI, works=(replace(WORK, compute_s=200.0),)),)),
        "90.9 %",
        working(compute_s=60.0),
    ),
    "waiting_for_the_slowest": (
        job_with(idle_s=150.0),
        "nuc was last in 2 of 3",
        job_with(idle_s=20.0),
    ),
    "communication": (working(upload_s=80.0), "pi mostly on uploading", working(upload_s=40.0)),
    "low_mfu": (
        working(mfu=0.03, precision="fp32"),
        "trained in fp32 where bf16 is faster",
        working(mfu=0.11),
    ),
    "impossible_mfu": (
        working(mfu=1.7),
        "pi trained faster than the measured peak",
        working(mfu=0.99),
    ),
    "loading": (
        working(phase_s={"load": 20.0, "forward": 30.0}),
        "pi spent over 15.0 %",
        working(phase_s={"load": 5.0, "forward": 30.0}),
    ),
    "padding": (
        replace(CALM, spec={"train": {"kernels": "plain", "batching": "random", "batch_size": 8}}),
        "pad each batch to its longest",
        replace(CALM, spec={"train": {"kernels": "plain", "batching": "length"}}),
    ),
    "memory_near_its_limit": (
        working(peak_memory_bytes=7.5e9),
        "pi used over 85.0 %",
        working(peak_memory_bytes=6e9),
    ),
    "energy_elsewhere": (
        working(communication_j=1500.0),
        "of the energy was spent",
        working(communication_j=None, waiting_j=None),
    ),
    "sent_again": (working(retransfer_bytes=3e6), "sent or received again", working()),
    "learned": (
        replace(CALM, first_score=17.0, last_score=23.5),
        "rose by 6.50 points with 360 k tokens and 3.60 kJ",
        replace(CALM, first_score=17.0, last_score=17.4),
    ),
    "everyone_delivered": (
        replace(CALM, devices=(replace(PI, offered=2), replace(NUC, offered=2))),
        "Each of 2 devices",
        replace(CALM, devices=(replace(PI, offered=2, lost=1), NUC)),
    ),
    "nothing_learned": (
        replace(CALM, first_score=20.0, last_score=18.0, first_loss=2.0, last_loss=1.9),
        "score fell",
        replace(CALM, first_score=20.0, last_score=20.1, first_loss=2.0, last_loss=1.9),
    ),
    "never_delivered": (
        job_with(works=(), trained_examples=0, **LOSER),
        "50.0 % of the examples did not count. Reasons: out of memory.",
        job_with(works=(), offered=0),
    ),
    "work_was_lost": (job_with(**LOSER), "Reasons: out of memory", job_with(lost=0)),
    "failed_rounds": (
        replace(CALM, rounds_failed=2, failed_s=90.0, reason="1 of 2 reported"),
        "2 rounds failed: 1 of 2 reported.",
        replace(CALM, reason="1 of 2 reported"),
    ),
    "work_against_data": (
        job_with(trained_examples=40),
        "pi did 16.7 % of the work with 50.0 % of the data",
        job_with(trained_examples=150),
    ),
    "personalised_models": (
        replace(CALM, devices=(replace(PI, last_score=20.0, own_score=23.0), NUC)),
        "For 1 of 1 devices the personalised model is better",
        job_with(last_score=20.0),
    ),
    "gain_over_alone": (
        replace(CALM, devices=(replace(PI, over_alone=3.0), replace(NUC, over_alone=-1.5))),
        "1 of 2 devices did better with the job's model than by training alone. The mean "
        "difference in ROUGE-L is +0.8 points. nuc would have done better by training alone.",
        job_with(last_score=20.0),
    ),
    "device_rewards": (
        replace(CALM, devices=(PAID, replace(PAID, name="nuc", works=(LESS,)))),
        "training raised the reward of 1 of 2 devices. It fell for nuc",
        job_with(works=(WORK, replace(WORK, reward=0.4))),
    ),
    "unequal_scores": (
        replace(CALM, devices=(replace(PI, last_score=20.0), replace(NUC, last_score=31.0))),
        "On nuc's data it reaches ROUGE-L 31.0, on pi's 20.0",
        job_with(last_score=20.0),
    ),
    "equal_scores": (
        replace(CALM, devices=(replace(PI, last_score=20.0), replace(NUC, last_score=21.0))),
        "at most 1.00 points",
        replace(CALM, devices=(replace(PI, last_score=20.0), replace(NUC, last_score=31.0))),
    ),
    "worse_than_before": (
        job_with(first_score=25.0, last_score=22.0),
        "For pi the model is worse",
        job_with(first_score=25.0, last_score=24.8),
    ),
}


def test_every_check_has_cases() -> None:
    assert set(CASES) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_fires_in_its_case_only(check: Any) -> None:
    loud, sentence, silent = CASES[check.__name__]
    finding = check(loud)
    assert finding is not None
    assert sentence in finding.sentence
    assert finding.evidence
    assert all(item.text not in ("", "–") for item in finding.evidence)
    assert check(silent) is None


def test_failed_job_reports_its_reason() -> None:
    payload = judge(replace(CALM, phase="failed", reason="1 of 5 reported")).findings
    assert [one.sentence for one in payload] == ["The job failed: 1 of 5 reported."]


def test_report_needs_evidence_for_findings() -> None:
    assert [finding.key for finding in judge(CALM).findings] == []
    assert judge(CALM).thin == ""
    assert "no round has ended" in judge(JobFigures()).thin
    once = replace(CALM, devices=(replace(PI, works=(WORK,)),))
    assert "only 1 training was delivered" in judge(once).thin
    failed = JobFigures(devices=(replace(PI, works=()),), rounds_failed=1)
    assert {finding.key for finding in judge(failed).findings} == {
        "never_delivered",
        "failed_rounds",
    }


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_checks_accept_unknown_figures(check: Any) -> None:
    blank = DeviceFigures(name="blank", works=(TrainingFigures(), TrainingFigures()))
    check(JobFigures())
    check(JobFigures(devices=(blank, blank), rounds_closed=2, spec={"train": 3}))


@pytest.fixture
def finished_job(fleet: list[Device]) -> Job:
    job = measured.measured_job(fleet, rounds=4)
    last = job.rounds.order_by("number").last()
    assert last is not None
    last.delete()
    factories.finish(job)
    return Job.objects.get(pk=job.pk)


def test_job_figures_match_the_rows(finished_job: Job) -> None:
    figures = gather(finished_job)
    assert figures.rounds_closed == 3
    jetson = next(device for device in figures.devices if device.name == "jetson-lab")
    parts = Assignment.objects.filter(
        round__job=finished_job, device__name="jetson-lab", task="train"
    )
    assert jetson.total("compute_s") == pytest.approx(sum(p.metrics["seconds"] for p in parts))
    assert jetson.mfu == pytest.approx(0.36)
    waits = [(p.round.collected_at, p.ended_at) for p in parts if p.round.collected_at]
    idle = sum(max(0.0, (till - end).total_seconds()) for till, end in waits if end)
    assert jetson.idle_s == pytest.approx(idle)
    assert figures.last_score is not None
    assert figures.last_score > (figures.first_score or 0)


def test_report_page_shows_findings_with_evidence(finished_job: Job, ada: Client) -> None:
    text = ada.get(reverse("job-report", args=[finished_job.pk])).content.decode()
    assert "The model learned" in text
    assert "ROUGE-L before" in text
    assert "jetson-lab" in text
    assert "data-print" in text
    page = ada.get(reverse("job", args=[finished_job.pk])).content.decode()
    assert reverse("job-report", args=[finished_job.pk]) in page


def test_report_accepts_implausible_rows(finished_job: Job, ada: Client) -> None:
    for part in Assignment.objects.filter(round__job=finished_job, task="train"):
        part.metrics = {"seconds": -3, "mfu": "x", "phase_s": 4, "tokens": 1e99, "energy_j": []}
        part.ended_at = timezone.now() - timedelta(days=9)
        part.save()
    answer = ada.get(reverse("job-report", args=[finished_job.pk]))
    assert answer.status_code == 200
    assert "inf" not in answer.content.decode().split("<main")[1].replace("information", "")
    assert ada.get(reverse("job", args=[finished_job.pk])).status_code == 200


def test_report_of_a_job_without_rounds(ada: Client, fleet: list[Device]) -> None:
    job = factories.make_job(fleet, "queued")
    text = ada.get(reverse("job-report", args=[job.pk])).content.decode()
    assert "Too little evidence" in text


def test_queries_do_not_grow(
    ada: Client, fleet: list[Device], django_assert_max_num_queries: Any
) -> None:
    job = measured.measured_job(fleet, rounds=9)
    with django_assert_max_num_queries(9):
        ada.get(reverse("job-report", args=[job.pk]))
    with django_assert_max_num_queries(8):
        ada.get(reverse("api-job-report-csv", args=[job.pk]))
    factories.finish(job)
    for page, most in (("job-report", 13), ("job", 20)):
        with django_assert_max_num_queries(most):
            text = ada.get(reverse(page, args=[job.pk])).content.decode()
        assert "Predicted and measured" in text


def test_rest_report_equals_the_page(finished_job: Job, ada: Client) -> None:
    payload = ada.get(reverse("api-job-report", args=[finished_job.pk])).json()
    keys = [finding.key for finding in report(finished_job).findings]
    assert [one["key"] for one in payload["findings"]] == keys
    assert {item["unit"] for one in payload["findings"] for item in one["evidence"]} >= {"share"}
    answer = ada.get(reverse("api-job-report-csv", args=[finished_job.pk]))
    head, *rows = csv.reader(io.StringIO(answer.content.decode()))
    assert len(rows) == 9
    first = dict(zip(head, rows[1], strict=True))
    assert (first["round"], first["device"]) == ("1", "jetson-lab")
    communicating = float(first["download_s"]) + float(first["upload_s"])
    assert float(first["granularity"]) == pytest.approx(float(first["compute_s"]) / communicating)
    assert float(first["backward_s"]) == pytest.approx(0.52 * float(first["compute_s"]))
