"""A device's presence: its start, its measurements, and what it should know in return."""

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
from webapp.common.wake import wake_device, wake_job
from webapp.devices.broker_users import public_address
from webapp.devices.models import Device
from webapp.jobs.lifecycle.enrolment import replace_datasets
from webapp.jobs.lifecycle.transitions import expire_assignments, renew_lease, take_back
from webapp.jobs.models import Assignment
from webapp.telemetry.models import Sample
from webapp.telemetry.report_interval import interval_s

ONLINE_COUNT_TTL_S = 5


def hello(
    device: Device,
    boot_id: str,
    agent_version: str,
    profile: dict[str, Any],
    datasets: list[dict[str, Any]],
) -> dict[str, Any]:
    """The agent has started: what its former start held is offered again at once."""
    with transaction.atomic():
        if boot_id != device.boot_id:
            expire_assignments(device, "its agent was restarted")
            # Offers it had fetched and not begun went with its former start.
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


def measure(device: Device, values: dict[str, Any]) -> dict[str, Any]:
    """Store samples once each, renew the lease, and say what the device should know now."""
    activity = _plain(values["activity"])
    current = _current(device, activity)
    if current is not None and values["boot_id"] in ("", device.boot_id):
        take_back(current)  # before it counts as online, when the next attempt would be offered
    stored = _store_samples(device, values["samples"])
    Device.objects.filter(pk=device.pk).update(
        last_seen_at=timezone.now(),
        activity=activity,
        last_sample_seq=Greatest(F("last_sample_seq"), stored),
    )
    stop = None
    if current is None and activity["assignment"]:
        stop = {"assignment": activity["assignment"], "reason": "the server knows no such work"}
    if current is not None:
        _follow(current, activity["phase"])
        held = renew_lease(current.pk, device, current.round.policy.get("lease_s", 60.0))
        stop = None if held or current.phase in _ANSWERED else _cancel(current)
        wake_job(current.round.job_id)
    wake_device(device.pk)
    job_id = current.round.job_id if current is not None else None
    return {
        "acked_seq": stored or device.last_sample_seq,
        "interval_s": interval_s(device.pk, job_id, _online_count()),
        "cancel": [] if stop is None else [stop],
    }


_ANSWERED = (
    AssignmentPhase.REPORTED.value,
    AssignmentPhase.FOLDED.value,
    AssignmentPhase.OFFERED.value,
)


# What a device says it does, and the phase its assignment is in then.
_PHASE_OF = {
    "training": AssignmentPhase.TRAINING,
    "evaluating": AssignmentPhase.TRAINING,
    "folding": AssignmentPhase.TRAINING,
    "uploading": AssignmentPhase.UPLOADING,
}


def _follow(assignment: Assignment, activity: str) -> None:
    """Move an assignment to what its device does; an older batch moves nothing back."""
    wanted = _PHASE_OF.get(activity)
    if wanted is None or move_refusal(AssignmentPhase(assignment.phase), wanted):
        return
    seen = Assignment.objects.filter(pk=assignment.pk, phase=assignment.phase)
    if seen.update(phase=wanted.value):
        assignment.phase = wanted.value


def _cancel(assignment: Assignment) -> dict[str, str]:
    return {"assignment": str(assignment.pk), "reason": assignment.reason or assignment.phase}


def _plain(activity: dict[str, Any]) -> dict[str, Any]:
    held = activity.get("assignment")
    return {**activity, "assignment": str(held) if held else None}


def _current(device: Device, activity: dict[str, Any]) -> Assignment | None:
    if not activity.get("assignment"):
        return None
    return (
        Assignment.objects.filter(pk=activity["assignment"], device=device)
        .select_related("round", "device")
        .first()
    )


def _store_samples(device: Device, samples: list[dict[str, Any]]) -> int:
    """Store samples and return the highest seq among them (0 for none)."""
    if not samples:
        return 0
    named = {item["assignment"] for item in samples if item["assignment"]}
    mine = set(Assignment.objects.filter(pk__in=named, device=device).values_list("pk", flat=True))
    rows = [
        Sample(
            device=device,
            seq=item["seq"],
            at=item["at"],
            assignment_id=item["assignment"] if item["assignment"] in mine else None,
            values=item["values"],
        )
        for item in samples
    ]
    Sample.objects.bulk_create(rows, ignore_conflicts=True)
    newest: int = max(item["seq"] for item in samples)
    return newest


def _online_count() -> int:
    """Devices heard of lately, counted every few seconds and not at every batch."""
    since = timezone.now() - timedelta(seconds=60)

    def count() -> int:
        return Device.objects.filter(revoked_at=None, last_seen_at__gt=since).count()

    found = cache.get_or_set("devices-online", count, ONLINE_COUNT_TTL_S)
    return int(found or 0)
