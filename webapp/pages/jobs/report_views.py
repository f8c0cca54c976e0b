"""The page of a job's report."""

from __future__ import annotations

from typing import TypedDict
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from webapp.accounts.access import get_permitted_or_404
from webapp.jobs.analysis.device_metrics import ratio
from webapp.jobs.analysis.device_rewards import has_rewards
from webapp.jobs.models import Job
from webapp.jobs.planning.prediction import prediction
from webapp.jobs.report.job_figures import DeviceFigures, JobFigures, mean_mfu
from webapp.jobs.report.job_report import report


class ReportTotals(TypedDict):
    """The tiles; figures are None where nothing is known."""

    seconds: float | None
    score: float | None
    gain: float | None
    mfu: float | None
    tokens: float | None
    bytes: float | None
    joules: float | None
    estimated: bool
    metered: int
    trainings: int


class ReportDeviceRow(TypedDict):
    """A device over the whole job; ``of_data`` and ``of_work`` are shares of all devices."""

    device: DeviceFigures
    of_data: float | None
    of_work: float | None
    compute_s: float | None
    travel_s: float | None
    joules: float | None
    estimated: bool
    eta_e: float | None


@never_cache
def job_report(request: HttpRequest, job_id: UUID) -> HttpResponse:
    job = get_permitted_or_404(request, Job.objects.select_related("created_by"), pk=job_id)
    result = report(job)
    context = {
        "job": job,
        "report": result,
        "totals": job_totals(job, result.figures),
        "rows": device_rows(result.figures),
        "prediction": prediction(job),
        "over": job.is_over,
        "rewarded": has_rewards(job),
    }
    return render(request, "jobs/report.html", context)


def job_totals(job: Job, figures: JobFigures) -> ReportTotals:
    ended = job.ended_at or None
    works = figures.works
    gain = None
    if figures.first_score is not None and figures.last_score is not None:
        gain = figures.last_score - figures.first_score
    return {
        "seconds": (ended - job.started_at).total_seconds() if ended and job.started_at else None,
        "score": figures.last_score,
        "gain": gain,
        "mfu": mean_mfu(works),
        "tokens": figures.total("tokens") or None,
        "bytes": figures.total("up_bytes") + figures.total("down_bytes") or None,
        "joules": figures.total("joules") or None,
        "estimated": any(work.is_estimated for work in works),
        "metered": sum(work.joules is not None for work in works),
        "trainings": len(works),
    }


def device_rows(figures: JobFigures) -> list[ReportDeviceRow]:
    """A row per device, with its shares of data and work."""
    examples = sum(device.examples for device in figures.devices)
    trained = sum(device.trained_examples for device in figures.devices)
    rows: list[ReportDeviceRow] = []
    for device in figures.devices:
        metered = [work for work in device.works if work.eta_e]
        tokens = sum(work.tokens or 0.0 for work in metered)
        joules = sum((work.tokens or 0) / (work.eta_e or 1) for work in metered)
        rows.append(
            {
                "device": device,
                "of_data": ratio(device.examples, examples),
                "of_work": ratio(device.trained_examples, trained),
                "compute_s": device.total("compute_s") or None,
                "travel_s": device.total("download_s") + device.total("upload_s") or None,
                "joules": device.total("joules") or None,
                "estimated": any(work.is_estimated for work in device.works),
                "eta_e": ratio(tokens, joules),
            }
        )
    return rows
