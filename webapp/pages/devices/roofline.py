"""A device's roofline as its page draws it, what power it can tell, and its last jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedcore.hardware.machines import MACHINES
from fedcore.hardware.profile import hardware_of
from fedcore.hardware.roofline import Roofline, Verdict, roofline, verdict
from webapp.common.units import percent, plausible, si
from webapp.devices.models import Device
from webapp.jobs.analysis.device_metrics import Work, ratio, work_of
from webapp.jobs.models import Assignment, Job

Json = dict[str, Any]
TRAININGS = 200  # the newest, of which the last jobs are told
JOBS = 8
# Below this share of the roof it is not the roof that limits; our choice.
FAR_BELOW = 0.2

# What each sensor measures, in words.
SENSORS = {
    "nvml": "NVML, the whole card",
    "ina3221": "INA3221, the whole module",
    "rapl": "RAPL, processor and memory only",
    "battery": "battery, the whole machine while it discharges",
}


def picture(
    profile: Mapping[str, Any], newest: Assignment | None, flops_per_byte: float | None = None
) -> Json:
    """Everything the roofline chart shows; figures that are not known are None.

    ``flops_per_byte`` is that of the newest training, where the planner can tell it.
    """
    work = work_of(newest) if newest is not None else Work()
    roof = roofline(profile, work.precision or "auto")
    if flops_per_byte is not None and not _possible(roof, work, flops_per_byte):
        flops_per_byte = None
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
        "training": _training(newest, work, flops_per_byte),
        "verdict": _said(roof, work, flops_per_byte),
    }


def _possible(roof: Roofline, work: Work, flops_per_byte: float) -> bool:
    """Whether the training lies under the roof there; above it caches saved what was counted."""
    ceiling = roof.ceiling(flops_per_byte)
    return ceiling is None or work.flops_per_s is None or work.flops_per_s <= ceiling


def _training(newest: Assignment | None, work: Work, flops_per_byte: float | None) -> Json | None:
    if newest is None or not work.flops_per_s:
        return None
    return {
        "name": newest.round.job.name,
        "flops_per_byte": flops_per_byte,
        "flops_per_s": work.flops_per_s,
        "mfu": work.mfu,
    }


def _said(roof: Roofline, work: Work, flops_per_byte: float | None) -> Json:
    found = _verdict(roof, work, flops_per_byte)
    return {"bound": found.bound, "text": found.text, "advice": found.advice}


def _verdict(roof: Roofline, work: Work, flops_per_byte: float | None) -> Verdict:
    # Without phases all of a training counts as arithmetic: the verdict adds them up anyway.
    phases = work.phase_s or {"forward": work.compute_s or 0.0}
    seconds = {f"{name}_s": value for name, value in phases.items()}
    travel = {"download_s": work.download_s or 0.0, "upload_s": work.upload_s or 0.0}
    found = verdict(roof, seconds | travel, flops_per_byte)
    if found.bound in ("compute", "bandwidth") and _far_below(roof, work, flops_per_byte):
        return _overheads(roof, work, flops_per_byte)
    placed = flops_per_byte is not None or roof.ridge is None
    if found.bound != "unknown" or placed or not work.compute_s:
        return found
    reached = f", at {percent(work.mfu)} of its peak" if work.mfu is not None else ""
    text = f"the device computes most of the time{reached}; how many bytes that moved is not known"
    return Verdict("unknown", text, _most_useful(roof))


def _of_roof(roof: Roofline, work: Work, flops_per_byte: float | None) -> float | None:
    """What it reached as a share of what the roof allows at its place."""
    return ratio(work.flops_per_s, roof.ceiling(flops_per_byte or 0.0))


def _far_below(roof: Roofline, work: Work, flops_per_byte: float | None) -> bool:
    share = _of_roof(roof, work, flops_per_byte)
    return share is not None and share < FAR_BELOW


def _overheads(roof: Roofline, work: Work, flops_per_byte: float | None) -> Verdict:
    share = percent(_of_roof(roof, work, flops_per_byte))
    return Verdict(
        "unknown",
        f"neither arithmetic nor memory is at its limit: training reached {share} of what the roof "
        "allows at its place",
        "larger batches, more threads, and nothing else running on the machine",
    )


def _most_useful(roof: Roofline) -> str:
    """What the measured products say, where the job itself was not placed on the roofline."""
    low = [point for point in roof.points if roof.ridge and point.flops_per_byte < roof.ridge]
    if not roof.points:
        return "measure the device again, so that its products at the model's shapes are known"
    if 2 * len(low) >= len(roof.points):
        return (
            f"{len(low)} of {len(roof.points)} of its measured products lie under the slope, where "
            "memory limits: move fewer bytes (bf16, an int8 or nf4 base, a larger batch)"
        )
    return "most of its measured products lie under the flat roof: fewer FLOPs help, such as LoRA"


@dataclass(frozen=True)
class Fact:
    """A line of the profile. ``source`` says whether it was measured, declared or neither."""

    label: str
    value: str
    source: str = ""


def peak_facts(profile: Mapping[str, Any]) -> list[Fact]:
    """A line for each precision; one that is merely slower says so with both figures."""
    told = profile.get("peak_flops")
    read = {str(k): plausible(v) for k, v in told.items()} if isinstance(told, dict) else {}
    return [_peak_fact(name, value, read) for name, value in sorted(read.items(), reverse=True)]


def _peak_fact(name: str, value: float | None, every: Mapping[str, float | None]) -> Fact:
    label, base = f"Peak {name}", every.get("fp32")
    if value is None:
        return Fact(label, "not known")
    if value == 0:
        return Fact(label, "this hardware has no fast path for it")
    if base and name != "fp32" and value < base:
        here, there = si(value, "FLOP/s"), si(base, "FLOP/s")
        return Fact(label, f"slower than fp32 here ({here} against {there})", "measured")
    return Fact(label, si(value, "FLOP/s"), "measured")


def left_out(profile: Mapping[str, Any]) -> list[str]:
    """What the probe could not measure, and why."""
    told = profile.get("not_measured")
    return [line[:200] for line in told if isinstance(line, str)] if isinstance(told, list) else []


def power_fact(profile: Mapping[str, Any]) -> Fact:
    """Which sensor there is, or plainly that there is none and what that means."""
    sensor = profile.get("power_sensor")
    if isinstance(sensor, str) and sensor in SENSORS:
        return Fact("Power sensor", SENSORS[sensor], "measured")
    hardware = hardware_of(profile)
    board = MACHINES.get(hardware.board)
    if sensor is None:
        return Fact("Power sensor", "not reported by this agent")
    if board is None or not hardware.full_watts:
        return Fact("Power sensor", "none, and no data sheet: energy stays blank")
    return Fact("Power sensor", f"none; energy is estimated from the data sheet of {board.name}")


def rate_fact(label: str, value: object, note: str) -> Fact:
    """A measured rate in bytes per second."""
    read = plausible(value)
    return Fact(label, si(read, "B/s"), note) if read else Fact(label, "not known")


@dataclass
class JobWork:
    """What a device did in one job: sums over its trainings, None where nothing is known."""

    job: Job
    works: list[Work] = field(default_factory=list)

    @property
    def mfu(self) -> float | None:
        """Needed FLOPs over those the peak allows in the same seconds."""
        known = [w for w in self.works if w.mfu is not None and w.peak_flops and w.compute_s]
        able = sum((w.peak_flops or 0) * (w.compute_s or 0) for w in known)
        done = sum((w.mfu or 0) * (w.peak_flops or 0) * (w.compute_s or 0) for w in known)
        return ratio(done, able) if known else None

    @property
    def tokens_per_s(self) -> float | None:
        known = [work for work in self.works if work.tokens and work.compute_s]
        return ratio(_sum(w.tokens for w in known), _sum(w.compute_s for w in known))

    @property
    def joules(self) -> float | None:
        return _sum(work.joules for work in self.works)

    @property
    def is_estimated(self) -> bool:
        return any(work.is_estimated for work in self.works)

    @property
    def eta_e(self) -> float | None:
        known = [work for work in self.works if work.eta_e and work.tokens]
        spent = _sum((w.tokens or 0) / (w.eta_e or 1) for w in known)
        return ratio(_sum(w.tokens for w in known), spent)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def last_jobs(device: Device) -> list[JobWork]:
    """The device's newest jobs, from its newest trainings; one query."""
    rows = Assignment.objects.filter(device=device, task="train", phase__in=("reported", "folded"))
    newest = rows.select_related("round__job").order_by("-ended_at")[:TRAININGS]
    return grouped(newest)[:JOBS]


def grouped(parts: Iterable[Assignment]) -> list[JobWork]:
    """One entry a job, in the order in which they are met."""
    found: dict[Any, JobWork] = {}
    for part in parts:
        held = found.setdefault(part.round.job_id, JobWork(part.round.job))
        held.works.append(work_of(part))
    return list(found.values())
