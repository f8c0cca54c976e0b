"""Event log for people: one line per event, with its reason."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from webapp.common.wake import wake_fleet, wake_job
from webapp.devices.models import Device
from webapp.jobs.models import Event, EventLevel, Job


def job_event(
    job: Job, text: str, level: str = EventLevel.INFO, device: Device | None = None
) -> None:
    """Add a line to a job's log. The counter in the job's row keeps ``seq`` free of gaps."""
    with transaction.atomic():
        Job.objects.filter(pk=job.pk).update(event_seq=F("event_seq") + 1)
        seq = Job.objects.values_list("event_seq", flat=True).get(pk=job.pk)
        Event.objects.create(job=job, device=device, seq=seq, level=level, text=text)
    wake_job(job.pk)


def fleet_event(text: str, level: str = EventLevel.INFO, device: Device | None = None) -> None:
    """Add a line that belongs to no job, optionally about a device."""
    Event.objects.create(device=device, level=level, text=text)
    wake_fleet()
