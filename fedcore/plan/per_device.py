"""Each device's round with its per-device overrides: its own rank, batch size and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedcore.architecture.sizes import Architecture
from fedcore.errors import SpecError
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.device_plan import DevicePlan
from fedcore.plan.cost.merged_base import growth
from fedcore.plan.cost.round import plan_device, plan_devices, with_download
from fedcore.plan.fedpipe.allocate import allocate_fleet
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import Member, auto_ranks, differs, tailored, tailoring

BEFORE_PROBE = "before the probe, every matrix counts equally"


def plan_each_device(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> list[DevicePlan]:
    """A plan for each device, allocated by FedPipe if the job uses it."""
    if spec.method.family.plans_each_device:
        return [plan_before_probe(spec, sizes, device) for device in devices]
    return plan_with_overrides(spec, sizes, devices)


def plan_before_probe(spec: JobSpec, sizes: Architecture, device: Candidate) -> DevicePlan:
    """A device's round with FedPipe's allocation, before the probe has scored any matrix."""
    served = plan_device(spec, sizes, device)
    try:
        allocation = allocate_fleet(spec, sizes, [device])[device.name]
    except SpecError as error:
        return replace(served, why="; ".join(fault.message for fault in error.faults))
    plan = plan_device(tailored(spec, allocation.overrides(spec)), sizes, device)
    plan = with_download(plan, device, served.bytes_down, served.bytes_down_last)
    notes = (f"{allocation.why}; {BEFORE_PROBE}", *plan.notes)
    return replace(plan, notes=notes, allocation=allocation)


def plan_with_overrides(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> list[DevicePlan]:
    """A plan for each device with its overrides. Its slot is its place by name.

    Every device downloads the model that is served, whatever part of it the device trains.
    """
    if not devices:
        return []
    jobs = _device_jobs(spec, devices)
    (served,) = plan_devices(spec, sizes, devices[:1])
    more = growth(spec, sizes, [job.spec.adapter for job in jobs.values()])
    mean, last = (served.bytes_down + round(value) for value in (more.mean, more.last))
    plans: dict[str, DevicePlan] = {}
    for job in {id(job): job for job in jobs.values()}.values():  # equal jobs are planned together
        members = [device for device in devices if jobs[device.name] is job]
        for plan in plan_devices(job.spec, sizes, members):
            plans[plan.name] = replace(plan, why=job.why or plan.why)
    return [with_download(plans[device.name], device, mean, last) for device in devices]


@dataclass(frozen=True)
class _DeviceJob:
    """A job with a device's overrides; ``why``: why they cannot be applied, '' if they can."""

    spec: JobSpec
    why: str = ""


def _device_jobs(spec: JobSpec, devices: Sequence[Candidate]) -> Mapping[str, _DeviceJob]:
    """The job of each device by name; devices with equal overrides share one object."""
    if not differs(spec):
        shared = _DeviceJob(spec)
        return {device.name: shared for device in devices}
    ordered = sorted(devices, key=lambda device: device.name)
    speeds = {
        slot: max(device.hardware.peak_flops.values(), default=0.0)
        for slot, device in enumerate(ordered)
    }
    ranks = auto_ranks(spec.adapter.rank, speeds)
    by_overrides: dict[str, _DeviceJob] = {}
    jobs = {}
    for slot, device in enumerate(ordered):
        member = Member(slot, device.name, device.hardware.board)
        overrides = tailoring(spec, member, ranks[slot])
        key = repr(overrides)
        if key not in by_overrides:
            try:
                by_overrides[key] = _DeviceJob(tailored(spec, overrides))
            except SpecError as error:
                why = "; ".join(str(fault) for fault in error.faults)
                by_overrides[key] = _DeviceJob(spec, why)
        jobs[device.name] = by_overrides[key]
    return jobs
