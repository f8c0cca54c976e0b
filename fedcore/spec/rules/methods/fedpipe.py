"""Rules of FedPipe: what a job has to be so that its devices can be planned."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import KIND_PATH
from fedcore.spec.rules.contract import Rules


def _planning_faults(spec: JobSpec) -> list[Fault]:
    """What the planner of ranks and matrices needs, and what it decides itself."""
    adapter, faults = spec.adapter, []
    if not adapter.family.trains_low_rank_factors:
        message = "must be lora with fedpipe, which chooses the ranks of LoRA adapters"
        faults.append(Fault(KIND_PATH, message))
    elif not adapter.averaging.fits_any_device:
        message = (
            "must be flexlora with fedpipe: its devices train unlike matrices at unlike ranks, "
            "which only the average of their products makes one model of"
        )
        faults.append(Fault("adapter.aggregation", message))
    if not spec.evaluation.initial:
        message = "must be on with fedpipe: devices score their matrices with that evaluation"
        faults.append(Fault("evaluation.initial", message))
    for name in ("ranks", "alphas", "modules"):
        if getattr(adapter, name):
            message = "is what fedpipe decides; leave it out"
            faults.append(Fault(f"adapter.{name}", message))
    return faults


ROW = Rules((_planning_faults,))
