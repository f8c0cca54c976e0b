"""Device pages: list, comparison, one device, enrolment, revocation."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import prefetch_related_objects
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from fedcore.hardware.machines import MACHINES
from webapp.accounts.access import ENROL, REVOKE_DEVICE, current_user, get_permitted_or_404, require
from webapp.devices.models import Device, DeviceRole, Enrolment
from webapp.jobs.analysis import device_history, summaries
from webapp.jobs.analysis.device_metrics import training_figures
from webapp.jobs.lifecycle.enrolment import create_enrolment, revoke
from webapp.jobs.models import Assignment, Job
from webapp.jobs.planning.candidates import last_trainings
from webapp.pages.devices import profile_facts
from webapp.pages.devices.comparison import REFERENCES
from webapp.pages.devices.comparison_query import ComparisonQuery
from webapp.pages.devices.forms import EnrolForm, enrol_command
from webapp.pages.devices.job_totals import latest_jobs
from webapp.pages.devices.roofline_chart import arithmetic_intensity, roofline_chart

RECENT = 10
DEVICES_PER_PAGE = 100  # of the comparison
ROUNDS = 12  # on a device's page


def device_list(request: HttpRequest) -> HttpResponse:
    query = request.GET.get("q", "")[:100]
    presence = request.GET.get("presence", "")
    sort = request.GET.get("sort", "name")
    devices = device_history.search_devices(query, presence, sort)
    page = Paginator(devices, device_history.PAGE).get_page(request.GET.get("page"))
    on_page = list(page.object_list)
    prefetch_related_objects(on_page, device_history.DATASETS)
    fleet = Device.for_presence()
    context = {
        "page": page,
        "rows": device_history.device_rows(on_page, last_trainings(on_page)),
        "query": query,
        "presence": presence,
        "sort": sort,
        "counts": summaries.presence_counts(device.presence for device in fleet),
        "any": bool(devices) or Device.objects.exists(),
    }
    part = request.headers.get("HX-Target") == "devices"
    return render(request, "devices/_table.html" if part else "devices/list.html", context)


def device_compare(request: HttpRequest) -> HttpResponse:
    """Every device that is not revoked, in pages, with bars on common scales."""
    query = ComparisonQuery.of(request.GET)
    comparison = query.comparison()
    page = Paginator(comparison.rows, DEVICES_PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "comparison": comparison,
        "page": page,
        "query": query,
        "jobs": Job.objects.filter(alone_of=None)
        .exclude(phase="draft")
        .order_by("-created_at")[:RECENT],
        "references": [MACHINES[key] for key in REFERENCES],
        "csv": f"{reverse('api-device-comparison-csv')}?{query.query_string}",
    }
    part = request.headers.get("HX-Target") == "comparison"
    return render(request, "devices/_comparison.html" if part else "devices/compare.html", context)


def device_page(request: HttpRequest, device_id: int) -> HttpResponse:
    device = get_permitted_or_404(request, device_history.devices_with_data(), pk=device_id)
    trainings = Assignment.objects.filter(device=device).select_related("round__job")
    row = device_history.device_rows([device], last_trainings([device]))[0]
    intensity = arithmetic_intensity(device, row.last)
    context = {
        "device": device,
        "row": row,
        "peaks": profile_facts.peak_facts(device.profile),
        "rates": profile_facts.rate_facts(device.profile, row.link_bps),
        "connection": profile_facts.connection_facts(device),
        "roofline": roofline_chart(device.profile, row.last, intensity),
        "probe_gaps": profile_facts.probe_gaps(device.profile),
        "jobs": latest_jobs(device),
        "work": [
            (part, training_figures(part)) for part in trainings.order_by("-offered_at")[:ROUNDS]
        ],
        "credential": getattr(device, "credential", None),
        "summary": summaries.device_summary(device),
        "events": device.events.select_related("job").order_by("-at")[:30],
    }
    return render(request, "devices/page.html", context)


@require(ENROL)
@never_cache
def enrol(request: HttpRequest) -> HttpResponse:
    form = EnrolForm(request.POST or None)
    context: dict[str, object] = {"form": form, "command": "", "is_running": False}
    if request.method == "POST" and form.is_valid():
        name, dataset = form.cleaned_data["name"], form.cleaned_data["dataset"]
        role = form.cleaned_data["role"]
        trains = role != DeviceRole.AGGREGATOR
        enrolment, token = create_enrolment(current_user(request), name, role, form.lifetime)
        context["enrolment"] = enrolment
        context["command"] = enrol_command(settings.PUBLIC_URL, token, name, dataset, trains)
        context["needs_dataset"] = trains and not dataset
    recent = Enrolment.objects.select_related("device", "created_by")
    context["recent"] = recent.order_by("-created_at")[:RECENT]
    return render(request, "devices/enrol.html", context)


@never_cache
def enrolment_state(request: HttpRequest, enrolment_id: int) -> HttpResponse:
    """The state of an enrolment as a fragment; 204 while nothing has changed."""
    rows = Enrolment.objects.select_related("device")
    enrolment = get_permitted_or_404(request, rows, ENROL, pk=enrolment_id)
    if enrolment.state == request.GET.get("was") == "waiting":
        return HttpResponse(status=204)
    device = enrolment.device
    context = {
        "enrolment": enrolment,
        "device": device,
        "is_running": device is not None and device.last_seen_at is not None,
        "row": device_history.device_rows([device], {})[0] if device is not None else None,
    }
    return render(request, "devices/_enrolment.html", context)


@require_POST
def device_revoke(request: HttpRequest, device_id: int) -> HttpResponse:
    device = get_permitted_or_404(request, Device.objects.all(), REVOKE_DEVICE, pk=device_id)
    revoke(device, current_user(request))
    messages.success(request, f"{device.name} is revoked; its credential no longer works.")
    return redirect("device", device_id=device.pk)


@require(REVOKE_DEVICE)
@require_POST
def revoke_many(request: HttpRequest) -> HttpResponse:
    ids = [int(key) for key in request.POST.getlist("device") if key.isdecimal()]
    devices = list(Device.objects.filter(pk__in=ids, revoked_at=None))
    for device in devices:
        revoke(device, current_user(request))
    if devices:
        names = ", ".join(device.name for device in devices)
        messages.success(request, f"Revoked: {names}.")
    else:
        messages.error(request, "Select at least one device that is not revoked.")
    return redirect("devices")
