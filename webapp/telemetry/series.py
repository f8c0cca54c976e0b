"""Time series for charts: new samples after a reader's cursors, and thinned histories.

Nothing is averaged. Thinning keeps whole samples: in each interval those with the lowest and the
highest value of a metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import NotRequired, TypedDict
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Mod

from webapp.common.metric_definitions import METRICS
from webapp.common.units import plausible
from webapp.jobs.analysis import device_metrics
from webapp.jobs.models import Job
from webapp.telemetry.models import Sample

# Values that charts draw; a page gets no others.
CHARTED = (
    "loss",
    "reward",
    "mfu",
    "tokens_per_s",
    "net_up_bps",
    "net_down_bps",
    "watts",
    "watts_estimated",
    "memory_bytes",
    "peak_memory_bytes",
    "mfu_peak_flops",
)
# Tokens per second and watt, by the power of a sensor or by an estimated one.
EFFICIENCY = {"eta_e": "watts", "eta_e_estimated": "watts_estimated"}
PHASES = tuple(f"{name}_s" for name in device_metrics.PHASES)
# Thinning keeps the extremes of these.
EXTREMES = ("loss", "reward", "mfu", "tokens_per_s", "net_up_bps", "net_down_bps", "eta_e")
POINTS = 12_000  # of all devices in one history
READ_AT_MOST = 200_000  # samples read for one history
BATCH = 100  # cursors in one query


class SampleJson(TypedDict):
    """A sample as charts get it. ``at``: ISO 8601; ``span_s``: of a rolled-up one, in seconds.

    ``values``: those of CHARTED and EFFICIENCY. ``round`` and ``task``: None outside a job.
    """

    device: int
    seq: int
    at: str
    round: int | None
    task: str | None
    values: dict[str, float]
    span_s: NotRequired[int]


class PhaseSumsJson(TypedDict):
    """Seconds of each phase of one assignment, by the names of ``device_metrics.PHASES``."""

    assignment: str
    round: int | None
    phase_s: dict[str, float]


@dataclass(frozen=True)
class History:
    """``thinned``: samples were omitted. ``cursors``: the newest seq of each device.

    ``phase_s``: by device, of the assignment of its newest sample, summed over all samples that
    were read.
    """

    samples: list[SampleJson]
    cursors: dict[int, int]
    thinned: bool = False
    phase_s: dict[int, PhaseSumsJson] = field(default_factory=dict)


class PhaseSums:
    """Seconds of each training phase, summed over each device's newest assignment."""

    def __init__(self, weight: int = 1) -> None:
        self.by_device: dict[int, PhaseSumsJson] = {}
        self._weight = weight  # samples that each sample read stands for

    def add(
        self,
        device: int,
        assignment: UUID | None,
        number: int | None,
        values: Mapping[str, object],
    ) -> None:
        """Samples must be added in order."""
        if "forward_s" not in values:
            return
        sums = self.by_device.get(device)
        if sums is None or sums["assignment"] != str(assignment):
            zeros = dict.fromkeys(device_metrics.PHASES, 0.0)
            sums = {"assignment": str(assignment), "round": number, "phase_s": zeros}
            self.by_device[device] = sums
        for phase, key in zip(device_metrics.PHASES, PHASES, strict=True):
            sums["phase_s"][phase] += self._weight * (plausible(values.get(key)) or 0.0)


def job_samples(job: Job) -> QuerySet[Sample]:
    return Sample.objects.filter(assignment__round__job=job)


def samples_after(rows: QuerySet[Sample], cursors: Mapping[int, int], limit: int = 5000) -> History:
    """Samples after each device's cursor, oldest first, at most ``limit`` per BATCH devices."""
    samples: list[SampleJson] = []
    sums = PhaseSums()
    devices = sorted(cursors)
    for start in range(0, len(devices), BATCH):
        group = devices[start : start + BATCH]
        newer = reduce(or_, (Q(device_id=i, seq__gt=cursors[i]) for i in group))
        samples.extend(_read(rows.filter(newer).order_by("seq")[:limit], sums))
    newest = dict(cursors)
    for sample in samples:
        newest[sample["device"]] = max(newest[sample["device"]], sample["seq"])
    return History(samples, newest, phase_s=sums.by_device)


def history(rows: QuerySet[Sample], devices: Sequence[int], points: int = POINTS) -> History:
    """All samples of these devices, thinned to about ``points`` in total."""
    counts = dict(rows.values_list("device_id").annotate(n=Count("id")).order_by("device_id"))
    stride = max(1, math.ceil(sum(counts.values()) / READ_AT_MOST))
    if stride > 1:
        # Rolled-up samples are sparse already, and their seq is not consecutive.
        rows = rows.annotate(nth=Mod(F("seq"), stride)).filter(Q(nth=0) | Q(span_s__gt=0))
    limit = max(60, points // max(1, len(counts)))
    sums = PhaseSums(stride)
    by_device: dict[int, list[SampleJson]] = {}
    for sample in _read(rows.order_by("device_id", "seq"), sums):
        by_device.setdefault(sample["device"], []).append(sample)
    thinned = [sample for samples in by_device.values() for sample in thin(samples, limit)]
    cursors = dict.fromkeys(devices, 0)
    cursors |= {device: samples[-1]["seq"] for device, samples in by_device.items()}
    return History(thinned, cursors, len(thinned) < sum(counts.values()), sums.by_device)


def thin(samples: Sequence[SampleJson], limit: int) -> list[SampleJson]:
    """At most about ``limit`` samples: both ends, and the extremes of each interval."""
    if len(samples) <= limit:
        return list(samples)
    intervals = max(1, limit // (2 * len(EXTREMES)))
    indices = {0, len(samples) - 1}
    for number in range(intervals):
        start = number * len(samples) // intervals
        stop = (number + 1) * len(samples) // intervals
        for key in EXTREMES:
            known = [i for i in range(start, stop) if key in samples[i]["values"]]
            if known:
                indices.add(min(known, key=lambda i: samples[i]["values"][key]))
                indices.add(max(known, key=lambda i: samples[i]["values"][key]))
    return [samples[i] for i in sorted(indices)]


def _read(rows: QuerySet[Sample], sums: PhaseSums) -> Iterable[SampleJson]:
    of_assignment = ("assignment_id", "assignment__round__number", "assignment__task")
    columns = ("device_id", "seq", "at", *of_assignment, "values", "span_s")
    table = rows.values_list(*columns).iterator(2000)
    for device, seq, at, assignment, number, task, values, span_s in table:
        sums.add(device, assignment, number, values)
        charted: dict[str, float] = {}  # an implausible value is omitted and leaves a gap
        for key in CHARTED:
            if key in values:
                value = plausible(values[key], METRICS[key].low, METRICS[key].high)
                if value is not None:
                    charted[key] = _short(value)
        for key, power in EFFICIENCY.items():
            if charted.get("tokens_per_s") and charted.get(power):
                charted[key] = _short(charted["tokens_per_s"] / charted[power])
        sample: SampleJson = {
            "device": device,
            "seq": seq,
            "at": at.isoformat(timespec="milliseconds"),
            "round": number,
            "task": task,
            "values": charted,
        }
        if span_s:
            sample["span_s"] = span_s
        yield sample


def _short(value: float) -> float:
    """Five significant digits: more than a chart can show."""
    return float(f"{value:.5g}")
