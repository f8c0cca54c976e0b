"""Job pages: overview, list, new job with its estimate, one job and its actions."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from fedcore.errors import Fault, SpecError
from fedcore.rounds.job_lifecycle import PERSON_MOVES, JobPhase
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from webapp.accounts.access import (
    CREATE_JOB,
    DELETE_JOB,
    MOVE_JOB,
    PIN_MODEL,
    current_user,
    get_permitted_or_404,
    require,
)
from webapp.devices.models import Dataset, Device
from webapp.jobs.analysis import cluster_metrics, device_history, summaries
from webapp.jobs.analysis.device_rewards import has_rewards
from webapp.jobs.analysis.snapshot import snapshot
from webapp.jobs.lifecycle import pinning, services
from webapp.jobs.models import ArtefactKind, Event, Job, Round
from webapp.jobs.planning import fedpipe_plans
from webapp.jobs.planning.candidates import last_trainings
from webapp.jobs.planning.job_estimate import estimate
from webapp.jobs.planning.prediction import prediction
from webapp.pages.jobs import form_values, forms, local_baseline_views
from webapp.pages.live.readers import event_json

JOBS_PER_PAGE = 30
MODELS = 20  # on a job's page
# With more devices than this, the page requests the estimate after it has loaded.
ESTIMATE_INLINE = 200
IN_PROGRESS = ("queued", "running", "paused")


@never_cache
def overview(request: HttpRequest) -> HttpResponse:
    fleet = list(Device.for_presence())
    jobs = Job.objects.filter(alone_of=None)
    in_progress = jobs.filter(phase__in=IN_PROGRESS).order_by("-created_at")[:12]
    ended = jobs.filter(phase__in=[p.value for p in JobPhase]).exclude(phase__in=IN_PROGRESS)
    # Events of local-only baselines would drown the others.
    events = Event.objects.filter(job__alone_of=None).select_related("job", "device")
    context = {
        "counts": summaries.presence_counts(device.presence for device in fleet),
        "unable": [device for device in fleet if device.is_unable],
        "jobs": summaries.job_summaries(in_progress),
        "ended": summaries.job_summaries(ended.order_by("-created_at")[:5]),
        "compared": jobs.filter(alone_jobs__phase__in=IN_PROGRESS).annotate(n=Count("alone_jobs")),
        "events": events.order_by("-at", "-id")[:12],
        "has_device": bool(fleet),
        "has_data": Dataset.objects.filter(device__revoked_at=None).exists(),
        "has_job": Job.objects.exists(),
        "attention": Device.objects.filter(revoked_at=None).count(),
    }
    part = request.headers.get("HX-Target") == "overview"
    return render(request, "jobs/_overview.html" if part else "jobs/overview.html", context)


def job_list(request: HttpRequest) -> HttpResponse:
    query, phase = request.GET.get("q", "")[:100], request.GET.get("phase", "")
    rows = Job.objects.filter(alone_of=None).order_by("-created_at")
    rows = rows.annotate(alone=Count("alone_jobs"))
    if query:
        rows = rows.filter(Q(name__icontains=query) | Q(created_by__username__icontains=query))
    if phase in {item.value for item in JobPhase}:
        rows = rows.filter(phase=phase)
    page = Paginator(rows, JOBS_PER_PAGE).get_page(request.GET.get("page"))
    jobs = list(page.object_list)
    by_id = {
        head["id"]: head
        for head in summaries.job_summaries(Job.objects.filter(pk__in=[job.pk for job in jobs]))
    }
    context = {
        "page": page,
        "rows": [(job, by_id[str(job.pk)]) for job in jobs],
        "query": query,
        "phase": phase,
        "phases": [item.value for item in JobPhase],
        "any": Job.objects.exists(),
    }
    part = request.headers.get("HX-Target") == "jobs"
    return render(request, "jobs/_table.html" if part else "jobs/list.html", context)


@require(CREATE_JOB)
@never_cache
def job_new(request: HttpRequest) -> HttpResponse:
    is_post = request.method == "POST"
    source = request.GET.get("from", "")  # the job whose specification fills the form
    if is_post:
        values = form_values.read(request.POST)
    elif source:
        try:
            job = get_permitted_or_404(request, Job.objects.all(), CREATE_JOB, pk=source)
        except (ValidationError, ValueError):
            raise Http404("there is no such job to start from") from None
        values = dict(job.spec)
    else:
        values = JobSpec().to_dict()
    faults: tuple[Fault, ...] = ()
    if is_post:
        try:
            launch = request.POST.get("then") != "draft"
            job = services.create_job(parse_spec(values), current_user(request), launch)
        except SpecError as error:
            faults = error.faults
        else:
            return redirect("job", job_id=job.pk)
    devices = device_history.enrolled_devices()
    is_inline = len(devices) <= ESTIMATE_INLINE
    context = {
        "sections": forms.sections(values, faults, devices),
        "errors": forms.error_links(faults),
        **(_estimate_context(values, devices) if is_inline else {"estimate": None, "later": True}),
    }
    return render(request, "jobs/new.html", context, status=422 if faults else 200)


@require(CREATE_JOB)
@require_POST
def job_estimate(request: HttpRequest) -> HttpResponse:
    values = form_values.read(request.POST)
    context = _estimate_context(values, device_history.enrolled_devices())
    return render(request, "jobs/_estimate.html", context)


def _estimate_context(values: dict[str, Any], devices: list[Device]) -> dict[str, Any]:
    """The estimate, or the errors that a launch would report."""
    try:
        spec = parse_spec(values)
        services.check_devices(spec)
    except SpecError as error:
        errors = forms.error_links(error.faults)
        return {"estimate": None, "later": False, "estimate_errors": errors}
    result = estimate(spec, devices, last_trainings(devices))
    return {
        "estimate": result,
        "warnings": forms.error_links(fedpipe_plans.budget_faults(spec, result.plan)),
        "spec": spec,
        "spec_json": json.dumps(spec.to_dict(), indent=2),
    }


@never_cache
def job_page(request: HttpRequest, job_id: UUID) -> HttpResponse:
    rows = Job.objects.select_related(
        "global_artefact", "merged_artefact", "created_by", "alone_of"
    )
    job = get_permitted_or_404(request, rows, pk=job_id)
    events = Event.objects.filter(job=job).order_by("-seq")[:200]
    with_model = Round.objects.filter(job=job, global_artefact__kind=ArtefactKind.GLOBAL)
    newest = with_model.order_by("-number", "-attempt").values_list("pk", flat=True)[:MODELS]
    models = with_model.filter(Q(pk__in=list(newest)) | Q(pinned_at__isnull=False))
    context = {
        "job": job,
        "snapshot": snapshot(job),
        "events": [event_json(event) for event in events],
        "spec_json": json.dumps(job.spec, indent=2),
        "changed": forms.changed_options(job.spec),
        "models": list(models.select_related("global_artefact").order_by("-number", "-attempt")),
        "planned": fedpipe_plans.plan_texts(job),
        "prediction": prediction(job),
        "clusters": cluster_metrics.cluster_summary(job),
        "rewarded": has_rewards(job),
        **local_baseline_views.baseline_context(job),
        "deletable": job.phase in pinning.DELETABLE,
    }
    return render(request, "jobs/page.html", context)


@never_cache
def job_clusters(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The clusters as a fragment; 204 while no further round has been merged."""
    job = get_permitted_or_404(request, Job.objects.all(), pk=job_id)
    clusters = cluster_metrics.cluster_summary(job)
    if clusters is None or (not job.is_over and str(clusters["rounds"]) == request.GET.get("was")):
        return HttpResponse(status=204)
    return render(request, "jobs/_clusters.html", {"job": job, "clusters": clusters})


@require_POST
def round_pin(request: HttpRequest, round_id: int, name: str) -> HttpResponse:
    if name not in ("pin", "unpin"):
        raise Http404("the model of a round can be pinned or unpinned")
    row = get_permitted_or_404(request, Round.objects.all(), PIN_MODEL, pk=round_id)
    try:
        (pinning.pin if name == "pin" else pinning.unpin)(row.pk, current_user(request))
    except services.MoveRefused as refused:
        messages.error(request, _sentence(refused))
    return redirect("job", job_id=row.job_id)


@require_POST
def job_delete(request: HttpRequest, job_id: UUID) -> HttpResponse:
    job = get_permitted_or_404(request, Job.objects.all(), DELETE_JOB, pk=job_id)
    try:
        pinning.delete_job(job.pk, current_user(request))
    except services.MoveRefused as refused:
        messages.error(request, _sentence(refused))
        return redirect("job", job_id=job_id)
    messages.success(request, f"Job “{job.name}” has been deleted.")
    return redirect("jobs")


def _sentence(error: Exception) -> str:
    return f"{str(error)[:1].upper()}{str(error)[1:]}."


@require_POST
def job_move(request: HttpRequest, job_id: UUID, name: str) -> HttpResponse:
    if name not in PERSON_MOVES:
        raise Http404("a job can be launched, paused, resumed, retried or cancelled")
    job = get_permitted_or_404(request, Job.objects.all(), MOVE_JOB, pk=job_id)
    try:
        services.move(job.pk, name, current_user(request))
    except services.MoveRefused as refused:
        messages.error(request, _sentence(refused))
    return redirect("job", job_id=job.pk)
