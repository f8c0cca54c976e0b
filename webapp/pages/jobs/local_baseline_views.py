"""The local-only baseline on a job's page: started by a button, refreshed by polling."""

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
    """The section as a fragment, 204 while nothing has changed; POST starts the baseline."""
    if request.method == "POST":
        job = get_permitted_or_404(request, Job.objects.all(), CREATE_JOB, pk=job_id)
        try:
            baseline_comparison.start_baseline(job.pk, current_user(request))
        except MoveRefused as error:
            messages.error(request, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        return redirect(f"{reverse('job', args=[job.pk])}#alone")
    job = get_permitted_or_404(request, Job.objects.all(), pk=job_id)
    context = baseline_context(job)
    if context["alone_etag"] == request.GET.get("was"):
        return HttpResponse(status=204)
    return render(request, "jobs/_alone.html", {"job": job, **context})


def baseline_context(job: Job) -> dict[str, Any]:
    """Template variables of the section."""
    baseline = baseline_comparison.comparison_json(job)
    return {"alone": baseline, "alone_etag": baseline_comparison.etag(baseline)}
