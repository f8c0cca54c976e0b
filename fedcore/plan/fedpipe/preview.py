"""What FedPipe would plan before the devices were probed: all matrices count alike."""

from __future__ import annotations

from dataclasses import replace

from fedcore.architecture.sizes import Architecture
from fedcore.errors import SpecError
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.round import fetching, plan_device
from fedcore.plan.device_plan import DevicePlan
from fedcore.plan.fedpipe.fleet import plans
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import tailored

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
