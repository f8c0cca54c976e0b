"""Event log for people: one line per event, with its reason."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

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


@dataclass(frozen=True)
class JobEvent:
    """A line for the log of a job."""

    job_id: UUID
    text: str
    device_id: int | None = None
    level: str = EventLevel.INFO


def job_events(events: Sequence[JobEvent]) -> None:
    """Add lines, in their order. The caller has locked the jobs' rows."""
    if not events:
        return
    counts = Counter(event.job_id for event in events)
    next_seq = {}
    for job_id, count in counts.items():
        Job.objects.filter(pk=job_id).update(event_seq=F("event_seq") + count)
        last = Job.objects.values_list("event_seq", flat=True).get(pk=job_id)
        next_seq[job_id] = itertools.count(last - count + 1)
    Event.objects.bulk_create(
        Event(
            job_id=event.job_id,
            device_id=event.device_id,
            seq=next(next_seq[event.job_id]),
            level=event.level,
            text=event.text,
        )
        for event in events
    )
    for job_id in counts:
        wake_job(job_id)


def fleet_event(text: str, level: str = EventLevel.INFO, device: Device | None = None) -> None:
    """Add a line that belongs to no job, optionally about a device."""
    Event.objects.create(device=device, level=level, text=text)
    wake_fleet()
