"""The log that people read: one line per thing that happened, with its reason."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F

from webapp.common.wake import wake_fleet, wake_job
from webapp.devices.models import Device
from webapp.jobs.models import Event, EventLevel, Job


def job_event(
    job: Job, text: str, level: str = EventLevel.INFO, device: Device | None = None
) -> None:
    """Add a line to a job's log. Counting up the job row first makes ``seq`` free of gaps."""
    with transaction.atomic():
        Job.objects.filter(pk=job.pk).update(event_seq=F("event_seq") + 1)
        seq = Job.objects.values_list("event_seq", flat=True).get(pk=job.pk)
        Event.objects.create(job=job, device=device, seq=seq, level=level, text=text)
    wake_job(job.pk)


def fleet_event(text: str, level: str = EventLevel.INFO, device: Device | None = None) -> None:
    """Add a line that belongs to no job."""
    Event.objects.create(device=device, level=level, text=text)
    wake_fleet()
