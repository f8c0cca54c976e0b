"""Presence of devices: hello, measurements and health.

A device is connected while its line is open. ``webapp.line.heartbeat`` writes that in bulk.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
from django.core.cache import cache
from django.db import transaction

from fedcore.errors import EdgewiseError
from fedcore.formats.line_bodies import Hello, HelloAnswer, Interval, MeasurementsBody
from fedcore.formats.line_messages import MessageError
from fedcore.rounds.queries import move_refusal
from fedcore.rounds.types import LEASED, AssignmentPhase
from webapp.common.metric_definitions import faults_of
from webapp.common.wake import wake_device, wake_job
from webapp.devices import device_messages
from webapp.devices.ability import blocks_work
from webapp.devices.models import Device
from webapp.devices.signing import successions
from webapp.jobs.lifecycle.enrolment import replace_datasets
from webapp.jobs.lifecycle.event_log import fleet_event
from webapp.jobs.lifecycle.transitions import expire_assignments, renew_leases, take_back
from webapp.jobs.models import Assignment, EventLevel
from webapp.line.calls import Call, LockedAssignments
from webapp.telemetry.models import Sample
from webapp.telemetry.report_interval import interval_s

ONLINE_COUNT_TTL_S = 5
SAMPLE_CLOCK_RANGE = timedelta(hours=12)
CLONE_EVENT_TTL_S = 600


# The phase of an assignment for each activity that its device reports.
_PHASE_OF = {
    "training": AssignmentPhase.TRAINING,
    "evaluating": AssignmentPhase.TRAINING,
    "folding": AssignmentPhase.TRAINING,
    "uploading": AssignmentPhase.UPLOADING,
}
_LEASED = frozenset(phase.value for phase in LEASED)
# A device that is still at such an assignment is told to stop.
_ENDED = frozenset(
    phase.value
    for phase in (AssignmentPhase.FAILED, AssignmentPhase.EXPIRED, AssignmentPhase.REFUSED)
)


def hello(calls: Sequence[Call]) -> list[HelloAnswer | Exception]:
    """Lines have begun. Assignments of an earlier start of an agent are offered again."""
    answers: list[HelloAnswer | Exception] = []
    for call in calls:
        try:
            answers.append(_hello(call.device, call.body, call.origin.epoch))
        except MessageError as error:
            answers.append(error)
    return answers


def _hello(device: Device, body: Hello, epoch: int) -> HelloAnswer:
    profile = body.read_profile()
    datasets = [msgspec.to_builtins(item) for item in body.read_datasets()]
    now = datetime.now(timezone.utc)
    changes: dict[str, Any] = {"agent_version": body.agent_version, "agent_refused_at": None}
    if profile:
        changes["profile"] = profile
    with transaction.atomic():
        if body.boot_id != device.boot_id:
            if _start_boot(device, body.boot_id):
                changes["agents_alternated_at"] = now
            changes |= {
                "boot_id": body.boot_id,
                "previous_boot_id": device.boot_id,
                "activity": {},
                "health": {},
            }
        Device.objects.filter(pk=device.pk, line_epoch=epoch).update(
            last_seen_at=now, disconnected_at=None, **changes
        )
        replace_datasets(device, datasets)
    wake_device(device.pk)
    return HelloAnswer(
        device.pk,
        device.name,
        device.role,
        device.last_sample_seq + 1,
        interval_s(device.pk, None, online_count()),
        now,
        successions(),
    )


def _start_boot(device: Device, boot_id: str) -> bool:
    """Give up what an earlier start of the agent was doing.

    Returns whether that earlier one is back, so that two agents replace each other.
    """
    expire_assignments(device, "the agent was restarted")
    # Offers that it received and did not accept are lost, so they are sent again.
    offered = Assignment.objects.filter(device=device, phase=AssignmentPhase.OFFERED.value)
    offered.update(sent_at=None)
    alternating = boot_id == device.previous_boot_id
    if alternating and cache.add(f"two-agents:{device.pk}", 1, CLONE_EVENT_TTL_S):
        text = (
            f"{device.name}: two agents use this credential and replace each other (boots "
            f"{device.boot_id[:8]} and {boot_id[:8]}); stop one, or enrol it as a device of its own"
        )
        fleet_event(text, EventLevel.ERROR, device)
    return alternating


class InvalidSamples(EdgewiseError):
    """Measurements with an unknown name or a value out of range."""


def measure(calls: Sequence[Call]) -> list[Interval | Exception]:
    """Store new samples, follow activities, and cancel work that a device should not do.

    The answers hold the seconds until the next measurements.
    """
    faults = {index: _fault_of(call.body) for index, call in enumerate(calls)}
    valid = [call for index, call in enumerate(calls) if faults[index] is None]
    with transaction.atomic():
        rows = LockedAssignments(valid)
        current = [rows.find(call) for call in valid]
        _store_samples(valid)
        _store_presence(valid)
        for call, assignment in zip(valid, current, strict=True):
            if assignment is not None and call.origin.boot_id == call.device.boot_id:
                take_back(assignment)  # before its next attempt is offered
                phase = _PHASE_OF.get(call.body.activity.phase)
                # An old batch moves nothing back.
                if phase and not move_refusal(AssignmentPhase(assignment.phase), phase):
                    assignment.phase = phase.value
        leased = [item for item in current if item and item.phase in _LEASED]
        renew_leases(leased)
    online, answers = online_count(), {}
    for call, assignment in zip(valid, current, strict=True):
        key = call.body.activity.assignment
        if key and assignment is None:
            text = "the site knows no such assignment"
            device_messages.cancel_soon(call.device.pk, str(key), text)
        elif assignment is not None and assignment.phase in _ENDED:
            text = assignment.reason or assignment.phase
            device_messages.cancel_soon(call.device.pk, str(assignment.pk), text)
        wake_device(call.device.pk)
        job_id = assignment.round.job_id if assignment else None
        answers[call.device.pk] = Interval(interval_s(call.device.pk, job_id, online))
    for job_id in rows.jobs:
        wake_job(job_id)
    return [faults[index] or answers[call.device.pk] for index, call in enumerate(calls)]


def _fault_of(body: MeasurementsBody) -> InvalidSamples | None:
    for sample in body.samples:
        faults = faults_of(sample.values)
        if faults:
            return InvalidSamples(f"sample {sample.seq}: {faults[0]}")
    return None


def _store_presence(calls: Sequence[Call]) -> None:
    # In new objects: the calls are tried again as they are where the transaction fails.
    now = datetime.now(timezone.utc)
    rows = [
        Device(
            pk=call.device.pk,
            last_seen_at=now,
            activity=msgspec.to_builtins(call.body.activity),
            last_sample_seq=max(
                [call.device.last_sample_seq, *(sample.seq for sample in call.body.samples)]
            ),
        )
        for call in calls
    ]
    Device.objects.bulk_update(rows, ["last_seen_at", "activity", "last_sample_seq"])


def _store_samples(calls: Sequence[Call]) -> None:
    """Store the samples that are new, once each.

    A time stamp that is hours from the site's clock is replaced by the site's.
    """
    fresh = [
        (call.device.pk, item)
        for call in calls
        for item in call.body.samples
        if item.seq > call.device.last_sample_seq
    ]
    if not fresh:
        return
    keys = {item.assignment for _, item in fresh if item.assignment}
    known = set(Assignment.objects.filter(pk__in=keys).values_list("device_id", "pk"))
    now = datetime.now(timezone.utc)
    Sample.objects.bulk_create(
        (
            Sample(
                device_id=device_id,
                seq=item.seq,
                at=item.at if abs(item.at - now) < SAMPLE_CLOCK_RANGE else now,
                assignment_id=item.assignment if (device_id, item.assignment) in known else None,
                values=item.values,
            )
            for device_id, item in fresh
        ),
        ignore_conflicts=True,
    )


def store_health(calls: Sequence[Call]) -> list[None]:
    """What devices report of themselves. It is an event when one stops or begins to take work."""
    for call in calls:
        device = call.device
        before, device.health = device.health, msgspec.to_builtins(call.body)
        if blocks_work(before) and not blocks_work(device.health):
            fleet_event(f"{device.name} takes work again", EventLevel.INFO, device)
        elif blocks_work(device.health) and not blocks_work(before):
            text = f"{device.name} takes no work: {device.ability or 'not able'}"
            fleet_event(text, EventLevel.WARNING, device)
    Device.objects.bulk_update([call.device for call in calls], ["health"])
    for call in calls:
        wake_device(call.device.pk)
    return [None] * len(calls)


def online_count() -> int:
    """Connected devices, counted every few seconds and not for each batch."""
    cached = cache.get_or_set("devices-online", Device.online().count, ONLINE_COUNT_TTL_S)
    return int(cached or 0)
