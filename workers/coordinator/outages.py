"""Detects coordinator outages and clock jumps, and extends open leases and deadlines by them.

Leases and deadlines are wall-clock times. ``record_heartbeat`` is called before they are compared
with the clock: a gap since the last heartbeat that the timer does not explain moves them all.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from fedcore.rounds.clock_gaps import outage_s
from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import ACTIVE, ENDED, RoundPhase
from webapp.devices.models import Device
from webapp.jobs.lifecycle.event_log import fleet_event
from webapp.jobs.models import Assignment, EventLevel, Job, Round, Watch

log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0  # a heartbeat this soon after the last one is not worth a write


def record_heartbeat() -> None:
    """Record that the coordinator is running; of several at once, one makes up for the gap."""
    now = timezone.now()
    watch = Watch.objects.filter(pk=Watch.ONLY).first()
    if watch is None:
        Watch.objects.get_or_create(pk=Watch.ONLY, defaults={"looked_at": now, "back_at": now})
        return
    gap_s = (now - watch.looked_at).total_seconds()
    if 0 <= gap_s < WRITE_EVERY_S:
        return
    away_s = outage_s(gap_s, settings.RECONCILE_INTERVAL_S)
    changes = {"looked_at": now, **({"back_at": now} if away_s else {})}
    with transaction.atomic():
        # Jobs are locked before their rounds and assignments, in one order, everywhere.
        open_phases = [JobPhase.QUEUED.value, JobPhase.RUNNING.value]
        jobs = Job.objects.select_for_update().filter(phase__in=open_phases).order_by("pk")
        list(jobs.values_list("pk"))
        first = Watch.objects.filter(pk=Watch.ONLY, looked_at=watch.looked_at).update(**changes)
        if first and away_s:
            _extend_leases(away_s, now)


def repeat_requests() -> None:
    """Repeat all requests to aggregation workers, since they may be lost.

    A worker that is still at it does the work twice, with the same bytes.
    """
    Round.objects.filter(phase=RoundPhase.AGGREGATING.value).update(aggregation_requested_at=None)
    waiting = Job.objects.filter(phase=JobPhase.QUEUED.value, global_artefact=None)
    waiting.update(initialise_requested_at=None)


def back_at() -> datetime:
    """Since when the coordinator has been running without a gap."""
    watch = Watch.objects.filter(pk=Watch.ONLY).first()
    return watch.back_at if watch is not None else datetime.fromtimestamp(0, UTC)


def _extend_leases(away_s: float, now: datetime) -> None:
    """Move open leases and deadlines by the outage, or back if the clock was set back."""
    by = timedelta(seconds=away_s)
    active = Assignment.objects.filter(phase__in=[phase.value for phase in ACTIVE])
    active.update(lease_until=F("lease_until") + by)
    active.filter(sent_at__isnull=False).update(sent_at=F("sent_at") + by)
    rounds = Round.objects.exclude(phase__in=[phase.value for phase in ENDED])
    rounds.filter(deadline_at__isnull=False).update(deadline_at=F("deadline_at") + by)
    repeat_requests()
    Device.objects.filter(last_seen_at__gt=now).update(last_seen_at=now)
    if away_s < 0:
        text = f"the server's clock was set back by {-away_s:.0f} s; open leases moved with it"
    else:
        text = (
            f"the coordinator was down for {away_s:.0f} s (or the clock jumped); "
            "open leases and deadlines were extended by that"
        )
    fleet_event(text, EventLevel.WARNING)
