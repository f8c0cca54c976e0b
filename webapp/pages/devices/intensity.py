"""How many FLOPs a device's last training did for each byte of memory traffic.

No counter of a usual device tells the bytes; the planner counts those that its step must move.
"""

from __future__ import annotations

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import SpecError
from fedcore.plan.cost.round import plan_devices
from webapp.common.units import plausible
from webapp.devices.models import Dataset, Device
from webapp.jobs.analysis.candidates import candidate
from webapp.jobs.models import Assignment


def flops_per_byte(device: Device, newest: Assignment | None) -> float | None:
    """By the planner; None for a model or a machine of which too little is known."""
    if newest is None:
        return None
    try:
        spec = newest.round.job.job_spec
    except SpecError:  # of an older version of this software
        return None
    sizes = architecture_of(spec.model.name)
    if sizes is None:
        return None
    held = [item for item in device.datasets.all() if item.name == spec.data.dataset]
    trained = Dataset(name="trained", examples=max(1, newest.examples))
    (plan,) = plan_devices(spec, sizes, [candidate(spec, device, (held or [trained])[0], newest)])
    return plausible(plan.step.flops_per_byte) or None if plan.step is not None else None
