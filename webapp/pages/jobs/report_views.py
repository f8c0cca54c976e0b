"""The page of a job's report."""

from __future__ import annotations

from typing import Any
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
from webapp.jobs.report.job_report import Report, report

Json = dict[str, Any]


@never_cache
def job_report(request: HttpRequest, job_id: UUID) -> HttpResponse:
    job = get_permitted_or_404(request, Job.objects.select_related("created_by"), pk=job_id)
    made = report(job)
    context = {
        "job": job,
        "report": made,
        "totals": totals(job, made.figures),
        "lines": lines(made),
        "prediction": prediction(job),
        "over": job.is_over,
        "rewarded": has_rewards(job),
    }
    return render(request, "jobs/report.html", context)


def totals(job: Job, figures: JobFigures) -> Json:
    """The tiles; None where nothing is known."""
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


def lines(made: Report) -> list[Json]:
    """One for each device, with its shares of data and work."""
    devices = made.figures.devices
    data = sum(device.examples for device in devices)
    work = sum(device.trained_examples for device in devices)
    return [_line(device, data, work) for device in devices]


def _line(device: DeviceFigures, data: int, work: int) -> Json:
    bought = [one for one in device.works if one.eta_e]
    tokens = sum(one.tokens or 0.0 for one in bought)
    travelled = device.total("download_s") + device.total("upload_s")
    return {
        "device": device,
        "of_data": ratio(device.examples, data),
        "of_work": ratio(device.trained_examples, work),
        "compute_s": device.total("compute_s") or None,
        "travel_s": travelled or None,
        "joules": device.total("joules") or None,
        "estimated": any(one.is_estimated for one in device.works),
        "eta_e": ratio(tokens, sum((one.tokens or 0) / (one.eta_e or 1) for one in bought)),
    }
