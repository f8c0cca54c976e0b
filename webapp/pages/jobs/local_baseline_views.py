"""The comparison with training alone on a job's page: asked for by a button, redrawn by itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from webapp.accounts.access import CREATE_JOB, current_user, get_permitted_or_404
from webapp.jobs.analysis import baseline_comparison
from webapp.jobs.lifecycle.services import MoveRefused
from webapp.jobs.models import Job


@never_cache
@require_http_methods(["GET", "POST"])
def job_alone(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The section; 204 while nothing has changed, so that nothing is drawn anew. POST asks."""
    if request.method == "POST":
        return _ask(request, job_id)
    job = get_permitted_or_404(request, Job.objects.all(), pk=job_id)
    context = shown(job)
    if context["alone_mark"] == request.GET.get("was"):
        return HttpResponse(status=204)
    return render(request, "jobs/_alone.html", {"job": job, **context})


def _ask(request: HttpRequest, job_id: UUID) -> HttpResponse:
    job = get_permitted_or_404(request, Job.objects.all(), CREATE_JOB, pk=job_id)
    try:
        baseline_comparison.start_baseline(job.pk, current_user(request))
    except MoveRefused as refused:
        messages.error(request, f"{str(refused)[:1].upper()}{str(refused)[1:]}.")
    return redirect(f"{reverse('job', args=[job.pk])}#alone")


def shown(job: Job) -> dict[str, Any]:
    """What the template needs beside the job."""
    told = baseline_comparison.comparison_json(job)
    return {"alone": told, "alone_mark": baseline_comparison.etag(told)}
