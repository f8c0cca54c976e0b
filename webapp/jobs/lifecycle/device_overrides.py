"""Per-device overrides of a job's options, assigned when the job gets its devices."""

from __future__ import annotations

from collections.abc import Sequence

from fedcore.errors import Fault
from fedcore.hardware.profile import hardware_of
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import Member, auto_ranks, differs, stranger_faults, tailored, tailoring
from webapp.devices.models import Device, DeviceRole
from webapp.jobs.artefacts.update_format import overrides_by_slot
from webapp.jobs.models import Job, Participant


def override_faults(spec: JobSpec) -> list[Fault]:
    """Overrides for a device or machine that this site does not have now."""
    if not differs(spec):
        return []
    chosen = set(spec.participation.devices)
    rows = Device.objects.filter(revoked_at=None).exclude(role=DeviceRole.AGGREGATOR)
    members = [_member(0, row) for row in rows.order_by("name") if not chosen or row.name in chosen]
    return stranger_faults(spec, members)


def unknown_devices(spec: JobSpec, participants: Sequence[Participant]) -> list[str]:
    """Event texts: overrides for a device or machine that is not among a job's participants."""
    members = [_member(row.slot, row.device) for row in participants]
    return [str(fault) for fault in stranger_faults(spec, members)]


def assign_overrides(spec: JobSpec, participants: Sequence[Participant]) -> None:
    """Set ``tailoring`` of a job's unsaved participants.

    Raises SpecError where an override is invalid on its device.
    """
    if not differs(spec):
        return
    peaks = {
        row.slot: max(hardware_of(row.device.profile).peak_flops.values(), default=0.0)
        for row in participants
    }
    ranks = auto_ranks(spec.adapter.rank, peaks)
    for row in participants:
        row.tailoring = tailoring(spec, _member(row.slot, row.device), ranks[row.slot])
        tailored(spec, row.tailoring)


def spec_for(job: Job, slot: int) -> JobSpec | None:
    """The job's specification with this device's overrides; None where it has none."""
    overrides = overrides_by_slot(job.pk).get(slot)
    return tailored(job.job_spec, overrides) if overrides else None


def _member(slot: int, device: Device) -> Member:
    return Member(slot, device.name, hardware_of(device.profile).board)
