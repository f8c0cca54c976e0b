"""Presence of devices: start of the agent, and measurements."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.cache import cache
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest
from django.utils import timezone

from fedcore.rounds.queries import move_refusal
from fedcore.rounds.types import AssignmentPhase
from webapp.api.device.answers import CancelJson, HelloAnswer, MeasurementsAnswer
from webapp.common.wake import wake_device, wake_job
from webapp.devices.broker_users import public_address
from webapp.devices.models import Device
from webapp.jobs.lifecycle.enrolment import replace_datasets
from webapp.jobs.lifecycle.transitions import expire_assignments, renew_lease, take_back
from webapp.jobs.models import Assignment
from webapp.telemetry.models import Sample
from webapp.telemetry.report_interval import interval_s

ONLINE_COUNT_TTL_S = 5


# The phase of an assignment for each activity that its device reports.
_PHASE_OF = {
    "training": AssignmentPhase.TRAINING,
    "evaluating": AssignmentPhase.TRAINING,
    "folding": AssignmentPhase.TRAINING,
    "uploading": AssignmentPhase.UPLOADING,
}
# In these phases an assignment without a lease is not cancelled.
_NOT_CANCELLED = (
    AssignmentPhase.REPORTED.value,
    AssignmentPhase.FOLDED.value,
    AssignmentPhase.OFFERED.value,
)


def hello(
    device: Device,
    boot_id: str,
    agent_version: str,
    profile: dict[str, Any],
    datasets: list[dict[str, Any]],
) -> HelloAnswer:
    """The agent has started: assignments of its previous start are offered again at once."""
    with transaction.atomic():
        if boot_id != device.boot_id:
            expire_assignments(device, "the agent was restarted")
            # Offers that it fetched and did not accept are lost, so they are sent again.
            offered = Assignment.objects.filter(device=device, phase=AssignmentPhase.OFFERED.value)
            offered.update(sent_at=None)
        changes: dict[str, Any] = {"boot_id": boot_id, "agent_version": agent_version}
        if profile:
            changes["profile"] = profile
        Device.objects.filter(pk=device.pk).update(
            last_seen_at=timezone.now(), activity={}, **changes
        )
        replace_datasets(device, datasets)
    wake_device(device.pk)
    return {
        "device": {"id": device.pk, "name": device.name, "role": device.role},
        "next_sample_seq": device.last_sample_seq + 1,
        "interval_s": interval_s(device.pk, None, _online_count()),
        "broker_url": public_address(),
        "cancel": [],
    }


def measure(device: Device, values: dict[str, Any]) -> MeasurementsAnswer:
    """Store new samples, renew the lease, and cancel work that the device should not do."""
    key = values["activity"].get("assignment")
    activity = {**values["activity"], "assignment": str(key) if key else None}
    assignments = Assignment.objects.filter(device=device).select_related("round", "device")
    current = assignments.filter(pk=key).first() if key else None
    if current is not None and values["boot_id"] in ("", device.boot_id):
        take_back(current)  # before the device counts as online and gets its next attempt offered
    newest_seq = _store_samples(device, values["samples"])
    Device.objects.filter(pk=device.pk).update(
        last_seen_at=timezone.now(),
        activity=activity,
        last_sample_seq=Greatest(F("last_sample_seq"), newest_seq),
    )
    cancel: list[CancelJson] = []
    if current is None and key:
        cancel = [{"assignment": str(key), "reason": "the server knows no such assignment"}]
    if current is not None:
        _follow_activity(current, activity["phase"])
        leased = renew_lease(current.pk, device, current.round.policy.get("lease_s", 60.0))
        if not leased and current.phase not in _NOT_CANCELLED:
            reason = current.reason or current.phase
            cancel = [{"assignment": str(current.pk), "reason": reason}]
        wake_job(current.round.job_id)
    wake_device(device.pk)
    job_id = current.round.job_id if current is not None else None
    return {
        "acked_seq": newest_seq or device.last_sample_seq,
        "interval_s": interval_s(device.pk, job_id, _online_count()),
        "cancel": cancel,
    }


def _follow_activity(assignment: Assignment, activity: str) -> None:
    """Move an assignment to the phase of its device's activity; an old batch moves nothing back."""
    phase = _PHASE_OF.get(activity)
    if phase is None or move_refusal(AssignmentPhase(assignment.phase), phase):
        return
    unmoved = Assignment.objects.filter(pk=assignment.pk, phase=assignment.phase)
    if unmoved.update(phase=phase.value):
        assignment.phase = phase.value


def _store_samples(device: Device, samples: list[dict[str, Any]]) -> int:
    """Store new samples; returns the highest seq of the batch, 0 for an empty one."""
    if not samples:
        return 0
    keys = {item["assignment"] for item in samples if item["assignment"]}
    known = set(Assignment.objects.filter(pk__in=keys, device=device).values_list("pk", flat=True))
    rows = [
        Sample(
            device=device,
            seq=item["seq"],
            at=item["at"],
            assignment_id=item["assignment"] if item["assignment"] in known else None,
            values=item["values"],
        )
        for item in samples
    ]
    Sample.objects.bulk_create(rows, ignore_conflicts=True)
    newest: int = max(item["seq"] for item in samples)
    return newest


def _online_count() -> int:
    """Devices seen in the last minute, counted every few seconds and not for each batch."""
    since = timezone.now() - timedelta(seconds=60)

    def count() -> int:
        return Device.objects.filter(revoked_at=None, last_seen_at__gt=since).count()

    cached = cache.get_or_set("devices-online", count, ONLINE_COUNT_TTL_S)
    return int(cached or 0)
