"""What FedPipe would plan before the devices were probed: all matrices count alike."""

from __future__ import annotations

from dataclasses import replace

from fedcore.errors import SpecError
from fedcore.plan.fedpipe_fleet import plans
from fedcore.plan.flops import Architecture
from fedcore.plan.round import Candidate, DevicePlan, fetching, plan_device
from fedcore.spec import JobSpec
from fedcore.tailoring import tailored

PRIOR = "before the probe, every matrix counts alike"


def before_the_probe(spec: JobSpec, sizes: Architecture, device: Candidate) -> DevicePlan:
    """A device's round of the job as FedPipe would give it."""
    served = plan_device(spec, sizes, device)
    try:
        choice = plans(spec, sizes, [device])[device.name]
    except SpecError as error:
        return replace(served, why="; ".join(fault.message for fault in error.faults))
    own = plan_device(tailored(spec, choice.tailoring(spec)), sizes, device)
    own = fetching(own, device, served.bytes_down, served.bytes_down_last)
    return replace(own, notes=(f"{choice.why}; {PRIOR}", *own.notes), planned=choice)
