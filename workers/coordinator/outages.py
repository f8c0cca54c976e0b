"""Notices that nobody decided for a while, or that the clock jumped, and makes up for it.

Leases and deadlines are moments on the wall clock. ``record_heartbeat`` is called before anything
is judged by them: where the gap since the last look is none that the timer explains, every open
moment moves.
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

NOTED_S = 1.0  # a look this soon after the last one is not worth a write


def record_heartbeat() -> None:
    """Note that the coordinator looks now; of several at once one makes up for the gap."""
    now = timezone.now()
    watch = Watch.objects.filter(pk=Watch.ONLY).first()
    if watch is None:
        Watch.objects.get_or_create(pk=Watch.ONLY, defaults={"looked_at": now, "back_at": now})
        return
    gap_s = (now - watch.looked_at).total_seconds()
    if 0 <= gap_s < NOTED_S:
        return
    away_s = outage_s(gap_s, settings.RECONCILE_INTERVAL_S)
    changes = {"looked_at": now, **({"back_at": now} if away_s else {})}
    with transaction.atomic():
        _lock_open_jobs()
        first = Watch.objects.filter(pk=Watch.ONLY, looked_at=watch.looked_at).update(**changes)
        if first and away_s:
            _move_open(timedelta(seconds=away_s), now)
            fleet_event(_told(away_s), EventLevel.WARNING)


def ask_again() -> None:
    """Whatever aggregation workers were asked for may be lost: it is asked for once more.

    A worker that is at it all the same does it twice, with the same bytes.
    """
    Round.objects.filter(phase=RoundPhase.AGGREGATING.value).update(aggregation_requested_at=None)
    waiting = Job.objects.filter(phase=JobPhase.QUEUED.value, global_artefact=None)
    waiting.update(initialise_requested_at=None)


def back_at() -> datetime:
    """Since when the coordinator looks without a gap."""
    watch = Watch.objects.filter(pk=Watch.ONLY).first()
    return watch.back_at if watch is not None else datetime.fromtimestamp(0, UTC)


def _told(away_s: float) -> str:
    if away_s < 0:
        return f"the server's clock was put back by {-away_s:.0f} s; open leases moved with it"
    return (
        f"nobody decided for {away_s:.0f} s, or the clock was put forward; "
        "open leases and deadlines were extended by that"
    )


def _lock_open_jobs() -> None:
    """In one order, before their rounds and assignments, as everybody takes them."""
    open_ = [JobPhase.QUEUED.value, JobPhase.RUNNING.value]
    rows = Job.objects.select_for_update().filter(phase__in=open_).order_by("pk")
    list(rows.values_list("pk"))


def _move_open(by: timedelta, now: datetime) -> None:
    active = Assignment.objects.filter(phase__in=[phase.value for phase in ACTIVE])
    active.update(lease_until=F("lease_until") + by)
    active.filter(sent_at__isnull=False).update(sent_at=F("sent_at") + by)
    rounds = Round.objects.exclude(phase__in=[phase.value for phase in ENDED])
    rounds.filter(deadline_at__isnull=False).update(deadline_at=F("deadline_at") + by)
    ask_again()
    Device.objects.filter(last_seen_at__gt=now).update(last_seen_at=now)
