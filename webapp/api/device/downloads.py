"""Download of an artefact by a device."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponseBase

from fedcore.rounds.types import ACTIVE
from webapp.devices.models import Device
from webapp.jobs.artefacts.streaming import stream
from webapp.jobs.lifecycle.transitions import add_traffic
from webapp.jobs.models import Assignment
from webapp.line.assignments import served


def download(request: HttpRequest, device: Device, sha256: str) -> HttpResponseBase:
    """Send an artefact that one of the device's open assignments needs."""
    open_ = Assignment.objects.filter(
        device=device, phase__in=[phase.value for phase in ACTIVE]
    ).select_related("round__base_artefact", "round__global_artefact", "round__job")
    for assignment in open_:
        for artefact in served(assignment):
            if artefact.sha256 == sha256:
                response = stream(request, artefact)
                add_traffic(assignment.pk, down=getattr(response, "sent_bytes", 0))
                return response
    raise Http404
