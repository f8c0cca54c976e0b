"""What FedPipe would plan before the devices were probed: all matrices count alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedcore.errors import SpecError
from fedcore.plan.fedpipe_fleet import plans
from fedcore.plan.flops import Architecture
from fedcore.plan.round import Candidate, DevicePlan, plan_device, plan_devices
from fedcore.spec import JobSpec
from fedcore.spec_fedpipe import NAME
from fedcore.tailoring import tailored

PRIOR = "before the probe, every matrix counts alike"


def devices_as_given(
    spec: JobSpec, sizes: Architecture, devices: Sequence[Candidate]
) -> list[DevicePlan]:
    """Each device's round of the job as it will be given it, planned by FedPipe where asked."""
    if spec.method.name != NAME:
        return plan_devices(spec, sizes, devices)
    return [_planned(spec, sizes, device) for device in devices]


def _planned(spec: JobSpec, sizes: Architecture, device: Candidate) -> DevicePlan:
    served = plan_device(spec, sizes, device)
    try:
        choice = plans(spec, sizes, [device])[device.name]
    except SpecError as error:
        return replace(served, why="; ".join(fault.message for fault in error.faults))
    own = plan_device(tailored(spec, choice.tailoring(spec)), sizes, device)
    seconds, cost = _with_the_models_download(own, served, device)
    notes = (f"{choice.why}; {PRIOR}", *own.notes)
    return replace(
        own, bytes_down=served.bytes_down, seconds=seconds, cost=cost, notes=notes, planned=choice
    )


def _with_the_models_download(
    own: DevicePlan, served: DevicePlan, device: Candidate
) -> tuple[dict[str, float], float | None]:
    """What comes down is the model that is served, whatever of it the device trains."""
    if device.link is None:
        return dict(own.seconds), None
    seconds = {**own.seconds, "download_s": device.link.down_s(served.bytes_down)}
    return seconds, device.link.cost(served.bytes_down + own.bytes_up)
