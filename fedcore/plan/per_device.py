"""Each device's round of a job as the job is given to it: ranks and more may differ by device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedcore.architecture.sizes import Architecture
from fedcore.errors import SpecError
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.merged_base import growth
from fedcore.plan.cost.round import fetching, plan_devices
from fedcore.plan.device_plan import DevicePlan
from fedcore.plan.fedpipe.preview import before_the_probe
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import Member, auto_ranks, differs, tailored, tailoring


def devices_as_given(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> list[DevicePlan]:
    """A plan for each, by FedPipe where the job asks for it."""
    if spec.method.family.plans_each_device:
        return [before_the_probe(spec, sizes, device) for device in devices]
    return by_their_options(spec, sizes, devices)


def by_their_options(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> list[DevicePlan]:
    """A device's slot is its place by name, as it is where all of these take part in the job.

    What comes down is the model that is served, whatever of it a device trains.
    """
    if not devices:
        return []
    own = _own_jobs(spec, devices)
    (served,) = plan_devices(spec, sizes, devices[:1])
    more = growth(spec, sizes, [job.adapter for job, _ in own.values()])
    mean, last = (served.bytes_down + round(value) for value in (more.mean, more.last))
    plans = _planned(own, sizes, devices)
    return [fetching(plans[device.name], device, mean, last) for device in devices]


def _planned(
    own: Mapping[str, tuple[JobSpec, str]], sizes: Architecture, devices: Sequence[Candidate]
) -> dict[str, DevicePlan]:
    """Devices that are given the same are planned together."""
    found: dict[str, DevicePlan] = {}
    for given in {id(job): job for job in own.values()}.values():
        alike = [device for device in devices if own[device.name] is given]
        for plan in plan_devices(given[0], sizes, alike):
            found[plan.name] = replace(plan, why=given[1] or plan.why)
    return found


def _own_jobs(spec: JobSpec, devices: Sequence[Candidate]) -> dict[str, tuple[JobSpec, str]]:
    """The job as each device is given it, and why it cannot be where it is given it as it is."""
    if not differs(spec):
        given = (spec, "")
        return {device.name: given for device in devices}
    ordered = sorted(devices, key=lambda device: device.name)
    speeds = {
        slot: max(device.hardware.peak_flops.values(), default=0.0)
        for slot, device in enumerate(ordered)
    }
    ranks = auto_ranks(spec.adapter.rank, speeds)
    known: dict[str, tuple[JobSpec, str]] = {}
    found = {}
    for slot, device in enumerate(ordered):
        member = Member(slot, device.name, device.hardware.board)
        changes = tailoring(spec, member, ranks[slot])
        key = repr(changes)
        if key not in known:
            known[key] = _with(spec, changes)
        found[device.name] = known[key]
    return found


def _with(spec: JobSpec, changes: Mapping[str, Any]) -> tuple[JobSpec, str]:
    try:
        return tailored(spec, changes), ""
    except SpecError as error:
        return spec, "; ".join(str(fault) for fault in error.faults)
