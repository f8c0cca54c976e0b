"""Pages of jobs: overview, list, new job with its estimate, one job and its moves."""

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
from webapp.jobs.analysis import cluster_metrics, device_history
from webapp.jobs.analysis import summaries as fleet
from webapp.jobs.analysis.device_rewards import has_rewards
from webapp.jobs.analysis.snapshot import snapshot
from webapp.jobs.lifecycle import pinning, services
from webapp.jobs.models import ArtefactKind, Event, Job, Round
from webapp.jobs.planning import fedpipe_plans
from webapp.jobs.planning.job_estimate import estimate
from webapp.jobs.planning.prediction import prediction
from webapp.pages.jobs import forms, local_baseline_views
from webapp.pages.live.readers import told_event

PAGE = 30
MODELS = 20  # of a job's page
# With more devices than this the estimate is asked for after the form has been shown.
AT_ONCE = 200
UNDER_WAY = ("queued", "running", "paused")


@never_cache
def overview(request: HttpRequest) -> HttpResponse:
    every = list(Device.objects.only("id", "name", "last_seen_at", "revoked_at", "activity"))
    jobs = Job.objects.filter(alone_of=None)
    under_way = jobs.filter(phase__in=UNDER_WAY).order_by("-created_at")[:12]
    ended = jobs.filter(phase__in=[p.value for p in JobPhase]).exclude(phase__in=UNDER_WAY)
    # Of the fleet and of jobs, not of each device that trains alone.
    events = Event.objects.filter(job__alone_of=None).select_related("job", "device")
    context = {
        "counts": fleet.presence_counts({"presence": device.presence} for device in every),
        "jobs": fleet.job_summaries(under_way),
        "ended": fleet.job_summaries(ended.order_by("-created_at")[:5]),
        "compared": jobs.filter(alone_jobs__phase__in=UNDER_WAY).annotate(n=Count("alone_jobs")),
        "events": events.order_by("-at", "-id")[:12],
        "has_device": bool(every),
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
    page = Paginator(rows, PAGE).get_page(request.GET.get("page"))
    shown = Job.objects.filter(pk__in=[job.pk for job in page.object_list])
    context = {
        "page": page,
        "rows": zip(
            page.object_list, _in_order(page.object_list, fleet.job_summaries(shown)), strict=True
        ),
        "query": query,
        "phase": phase,
        "phases": [item.value for item in JobPhase],
        "any": Job.objects.exists(),
    }
    part = request.headers.get("HX-Target") == "jobs"
    return render(request, "jobs/_table.html" if part else "jobs/list.html", context)


def _in_order(jobs: Any, heads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_id = {head["id"]: head for head in heads}
    return [by_id[str(job.pk)] for job in jobs]


@require(CREATE_JOB)
@never_cache
def job_new(request: HttpRequest) -> HttpResponse:
    values = forms.read(request.POST) if request.method == "POST" else _start(request)
    faults: tuple[Fault, ...] = ()
    if request.method == "POST":
        try:
            launch = request.POST.get("then") != "draft"
            job = services.create_job(parse_spec(values), current_user(request), launch)
        except SpecError as error:
            faults = error.faults
        else:
            return redirect("job", job_id=job.pk)
    devices = device_history.enrolled_devices()
    context = {
        "sections": forms.sections(values, faults, devices),
        "faults": forms.named(faults),
        **(_estimated(values, devices) if len(devices) <= AT_ONCE else {"later": True}),
    }
    return render(request, "jobs/new.html", context, status=422 if faults else 200)


def _start(request: HttpRequest) -> dict[str, Any]:
    """What the form begins with: the defaults, or another job's specification."""
    source = request.GET.get("from", "")
    if not source:
        return JobSpec().to_dict()
    try:
        job = get_permitted_or_404(request, Job.objects.all(), CREATE_JOB, pk=source)
    except (ValidationError, ValueError):
        raise Http404("there is no such job to start from") from None
    return dict(job.spec)


@require(CREATE_JOB)
@require_POST
def job_estimate(request: HttpRequest) -> HttpResponse:
    context = _estimated(forms.read(request.POST), device_history.enrolled_devices())
    return render(request, "jobs/_estimate.html", context)


def _estimated(values: dict[str, Any], devices: list[Device]) -> dict[str, Any]:
    try:
        spec = parse_spec(values)
        services.check_devices(spec)
    except SpecError as error:
        return {"estimate": None, "wrong": forms.named(error.faults)}
    found = estimate(spec, devices, device_history.last_trainings(devices))
    return {
        "estimate": found,
        "warnings": forms.named(fedpipe_plans.budget_faults(spec, found.plan)),
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
    context = {
        "job": job,
        "snapshot": snapshot(job),
        "events": [told_event(event) for event in events],
        "spec_json": json.dumps(job.spec, indent=2),
        "changed": forms.changed(job.spec),
        "models": _models(job),
        "planned": fedpipe_plans.plan_texts(job),
        "prediction": prediction(job),
        "clusters": cluster_metrics.cluster_summary(job),
        "rewarded": has_rewards(job),
        **local_baseline_views.shown(job),
        "deletable": job.phase in pinning.DELETABLE,
    }
    return render(request, "jobs/page.html", context)


@never_cache
def job_clusters(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Who folded what so far; 204 while no other round was folded and the job goes on."""
    job = get_permitted_or_404(request, Job.objects.all(), pk=job_id)
    told = cluster_metrics.cluster_summary(job)
    if told is None or (not job.is_over and str(told["rounds"]) == request.GET.get("was")):
        return HttpResponse(status=204)
    return render(request, "jobs/_clusters.html", {"job": job, "clusters": told})


def _models(job: Job) -> list[Round]:
    """The newest rounds that made a model, and every pinned one."""
    made = Round.objects.filter(job=job, global_artefact__kind=ArtefactKind.GLOBAL)
    newest = made.order_by("-number", "-attempt").values_list("pk", flat=True)[:MODELS]
    shown = made.filter(Q(pk__in=list(newest)) | Q(pinned_at__isnull=False))
    return list(shown.select_related("global_artefact").order_by("-number", "-attempt"))


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
    messages.success(request, f"The job “{job.name}” is deleted.")
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
