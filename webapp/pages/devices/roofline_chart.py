"""Data of a device's roofline chart: the roof, its measured kernels, its newest training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import SpecError
from fedcore.hardware.roofline import Roofline, Verdict, roofline, verdict
from fedcore.plan.cost.round import plan_devices
from webapp.common.units import percent, plausible
from webapp.devices.models import Dataset, Device
from webapp.jobs.analysis.device_metrics import TrainingFigures, ratio, training_figures
from webapp.jobs.models import Assignment
from webapp.jobs.planning.candidates import candidate

# Below this share of the roof something else limits; our choice.
FAR_BELOW = 0.2


class KernelPoint(TypedDict):
    """A measured matrix product."""

    name: str
    flops_per_byte: float
    flops_per_s: float


class TrainingPoint(TypedDict):
    """The newest training; ``flops_per_byte`` is None where the planner cannot place it."""

    name: str
    flops_per_byte: float | None
    flops_per_s: float
    mfu: float | None


class VerdictText(TypedDict):
    bound: str
    text: str
    advice: str


class RooflineChart(TypedDict):
    """FLOP/s, bytes/s and FLOP/byte; figures that are not known are None."""

    precision: str
    peak_flops: float | None
    bandwidth_bps: float | None
    ridge: float | None
    measured: bool
    points: list[KernelPoint]
    training: TrainingPoint | None
    verdict: VerdictText


def roofline_chart(
    profile: Mapping[str, Any], training: Assignment | None, intensity: float | None = None
) -> RooflineChart:
    """The chart of a device; ``intensity`` is the training's FLOPs per byte, where known."""
    work = training_figures(training) if training is not None else TrainingFigures()
    roof = roofline(profile, work.precision or "auto")
    if intensity is not None:
        ceiling = roof.ceiling(intensity)
        if ceiling is not None and work.flops_per_s is not None and work.flops_per_s > ceiling:
            intensity = None  # above the roof: caches saved some of the traffic that was counted
    point: TrainingPoint | None = None
    if training is not None and work.flops_per_s:
        point = {
            "name": training.round.job.name,
            "flops_per_byte": intensity,
            "flops_per_s": work.flops_per_s,
            "mfu": work.mfu,
        }
    result = _verdict(roof, work, intensity)
    return {
        "precision": roof.precision,
        "peak_flops": roof.peak_flops,
        "bandwidth_bps": roof.bandwidth_bps,
        "ridge": roof.ridge,
        "measured": roof.measured,
        "points": [
            {"name": p.name, "flops_per_byte": p.flops_per_byte, "flops_per_s": p.flops_per_s}
            for p in roof.points
        ],
        "training": point,
        "verdict": {"bound": result.bound, "text": result.text, "advice": result.advice},
    }


def _verdict(roof: Roofline, work: TrainingFigures, intensity: float | None) -> Verdict:
    """What limits the training, where the roof alone does not say it."""
    # An old report has no phases: its whole training counts as forward passes.
    phases = work.phase_s or {"forward": work.compute_s or 0.0}
    seconds = {f"{name}_s": value for name, value in phases.items()}
    seconds |= {"download_s": work.download_s or 0.0, "upload_s": work.upload_s or 0.0}
    result = verdict(roof, seconds, intensity)
    share_of_roof = ratio(work.flops_per_s, roof.ceiling(intensity or 0.0))
    is_far_below = share_of_roof is not None and share_of_roof < FAR_BELOW
    if result.bound in ("compute", "bandwidth") and is_far_below:
        return Verdict(
            "unknown",
            "neither arithmetic nor memory is at its limit: training reached "
            f"{percent(share_of_roof)} of what the roof allows",
            "larger batches, more threads, and nothing else running on the machine",
        )
    is_placed = intensity is not None or roof.ridge is None
    if result.bound != "unknown" or is_placed or not work.compute_s:
        return result
    reached = f", at {percent(work.mfu)} of its peak" if work.mfu is not None else ""
    text = f"the device computes most of the time{reached}; its memory traffic is not known"
    # A training without a place on the roofline: the measured kernels advise.
    below_ridge = [p for p in roof.points if roof.ridge and p.flops_per_byte < roof.ridge]
    if not roof.points:
        advice = "probe the device again, so that kernels at the model's shapes are measured"
    elif 2 * len(below_ridge) >= len(roof.points):
        advice = (
            f"{len(below_ridge)} of {len(roof.points)} measured kernels are limited by memory "
            "bandwidth: move fewer bytes (bf16, an int8 or nf4 base, a larger batch)"
        )
    else:
        advice = "most measured kernels are limited by arithmetic: fewer FLOPs help, such as LoRA"
    return Verdict("unknown", text, advice)


def arithmetic_intensity(device: Device, training: Assignment | None) -> float | None:
    """FLOPs per byte of memory traffic in a training, by the planner.

    Most devices have no counter for memory traffic, so the planner counts the bytes that a step
    must move. None for a model or a machine of which too little is known.
    """
    if training is None:
        return None
    try:
        spec = training.round.job.job_spec
    except SpecError:  # stored by an older version of this software
        return None
    sizes = architecture_of(spec.model.name)
    if sizes is None:
        return None
    matches = [item for item in device.datasets.all() if item.name == spec.data.dataset]
    dataset = matches[0] if matches else Dataset(name="trained", examples=max(1, training.examples))
    (plan,) = plan_devices(spec, sizes, [candidate(spec, device, dataset, training)])
    return plausible(plan.step.flops_per_byte) or None if plan.step is not None else None
