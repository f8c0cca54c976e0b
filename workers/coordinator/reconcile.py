"""The periodic pass that repairs what a crash or a lost message left behind."""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

from django.core.cache import cache
from django.db.models import Q
from django.utils import timezone

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import ENDED, AssignmentPhase
from webapp.jobs.models import Assignment, Job, Round
from workers.coordinator import outages
from workers.coordinator.advance import advance
from workers.coordinator.apply import send_offers

log = logging.getLogger(__name__)

OFFER_AGAIN_AFTER_S = 15.0
MARK = "queues-kept"


def run() -> None:
    """Advance every unfinished job, and resend lost offers."""
    outages.record_heartbeat()
    repeat_requests_after_broker_loss()
    for job_id in unfinished_jobs():
        try:
            advance(job_id)
        except Exception:  # a job that cannot be decided must not stop the others
            log.exception("job %s could not be advanced", job_id)
    send_lost_offers()


def repeat_requests_after_broker_loss() -> None:
    """Repeat the requests to workers if the site's broker has lost its data, hence our mark.

    While the broker is away every look-up misses, so unsent requests go out on its return.
    """
    if cache.add(MARK, 1, timeout=None):
        outages.repeat_requests()


def unfinished_jobs() -> list[UUID]:
    """Active jobs, and stopped jobs whose current round is still open."""
    active = Q(phase__in=[JobPhase.QUEUED.value, JobPhase.RUNNING.value])
    ended = [phase.value for phase in ENDED]
    stopped = Q(
        phase__in=[JobPhase.PAUSED.value, JobPhase.CANCELLED.value, JobPhase.FAILED.value],
        pk__in=Round.objects.exclude(phase__in=ended).values("job_id"),
    )
    rows = Job.objects.filter(active | stopped).order_by("created_at")
    return list(rows.values_list("pk", flat=True))


def send_lost_offers() -> None:
    """Resend offers that were not accepted for a while; accepting one twice is safe."""
    before = timezone.now() - timedelta(seconds=OFFER_AGAIN_AFTER_S)
    waiting = Assignment.objects.filter(phase=AssignmentPhase.OFFERED.value).filter(
        Q(sent_at=None) | Q(sent_at__lt=before)
    )
    send_offers(
        assignment
        for assignment in waiting.select_related("device")
        if assignment.device.can_work and not assignment.device.activity.get("assignment")
    )
