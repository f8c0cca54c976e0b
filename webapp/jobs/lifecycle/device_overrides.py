"""What a job's options are on each of its devices, fixed when its devices are."""

from __future__ import annotations

from collections.abc import Sequence

from fedcore.errors import Fault
from fedcore.hardware.profile import hardware_of
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import Member, auto_ranks, differs, stranger_faults, tailored, tailoring
from webapp.devices.models import Device, DeviceRole
from webapp.jobs.artefacts.update_format import overrides_by_slot
from webapp.jobs.models import Job, Participant


def faults(spec: JobSpec) -> list[Fault]:
    """Entries about a device or machine that the job cannot have now."""
    if not differs(spec):
        return []
    chosen = set(spec.participation.devices)
    rows = Device.objects.filter(revoked_at=None).exclude(role=DeviceRole.AGGREGATOR)
    members = [_member(0, row) for row in rows.order_by("name") if not chosen or row.name in chosen]
    return stranger_faults(spec, members)


def unknown_devices(spec: JobSpec, participants: Sequence[Participant]) -> list[str]:
    """The same of the devices that a job then has, in words for its log."""
    members = [_member(row.slot, row.device) for row in participants]
    return [str(fault) for fault in stranger_faults(spec, members)]


def assign_overrides(spec: JobSpec, participants: Sequence[Participant]) -> None:
    """Set ``tailoring`` of a job's devices, which are not stored yet.

    Raises SpecError where an option cannot be what it says on one of them.
    """
    if not differs(spec):
        return
    speeds = {row.slot: _peak(row.device) for row in participants}
    ranks = auto_ranks(spec.adapter.rank, speeds)
    for row in participants:
        row.tailoring = tailoring(spec, _member(row.slot, row.device), ranks[row.slot])
        tailored(spec, row.tailoring)


def spec_for(job: Job, slot: int) -> JobSpec | None:
    """The job as this device is given it; None where it is given it as it is."""
    changes = overrides_by_slot(job.pk).get(slot)
    return tailored(job.job_spec, changes) if changes else None


def _member(slot: int, device: Device) -> Member:
    return Member(slot, device.name, hardware_of(device.profile).board)


def _peak(device: Device) -> float:
    """The device's best measured FLOP/s of any precision; 0 where nothing was measured."""
    return max(hardware_of(device.profile).peak_flops.values(), default=0.0)
