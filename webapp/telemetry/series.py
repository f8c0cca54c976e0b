"""Samples behind a reader's cursors, and long histories thinned without losing their extremes.

Nothing is averaged: thinning keeps whole samples, in each stretch of time those where a metric is
lowest or highest, and says that it did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Mod

from webapp.common.metric_definitions import METRICS
from webapp.common.units import plausible
from webapp.jobs.analysis import device_metrics
from webapp.jobs.models import Job
from webapp.telemetry.models import Sample

Json = dict[str, Any]
# What charts draw; the other values of a sample stay on the server.
DRAWN = (
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
# Tokens per second and watt, made of a sample's two: by a sensor's power, or by an estimated one.
EFFICIENCY = {"eta_e": "watts", "eta_e_estimated": "watts_estimated"}
PHASES = tuple(f"{name}_s" for name in device_metrics.PHASES)
# Thinning keeps the extremes of these.
EXTREMES = ("loss", "reward", "mfu", "tokens_per_s", "net_up_bps", "net_down_bps", "eta_e")
POINTS = 12_000  # of all devices together in one answer
READ_AT_MOST = 200_000  # samples read for one history
BATCH = 100  # cursors in one query


@dataclass(frozen=True)
class History:
    """``thinned``: not every sample is here. ``cursors``: the newest seq of each device.

    ``phase_s``: of each device the assignment its newest sample belongs to, with the seconds of
    each phase that all samples read here add up to.
    """

    samples: list[Json]
    cursors: dict[int, int]
    thinned: bool = False
    phase_s: dict[int, Json] = field(default_factory=dict)


class PhaseSums:
    """Adds up the phases of what each device works on, while its samples pass by in order."""

    def __init__(self, each: int = 1) -> None:
        self.found: dict[int, Json] = {}
        self._each = each  # samples that one of those read stands for

    def add(self, device: int, assignment: Any, number: int | None, values: Json) -> None:
        if "forward_s" not in values:
            return
        held = self.found.get(device)
        if held is None or held["assignment"] != str(assignment):
            held = {"assignment": str(assignment), "round": number}
            held["phase_s"] = dict.fromkeys(device_metrics.PHASES, 0.0)
            self.found[device] = held
        for phase, key in zip(device_metrics.PHASES, PHASES, strict=True):
            held["phase_s"][phase] += self._each * (plausible(values.get(key)) or 0.0)


def job_samples(job: Job) -> QuerySet[Sample]:
    return Sample.objects.filter(assignment__round__job=job)


def samples_after(rows: QuerySet[Sample], cursors: Mapping[int, int], limit: int = 5000) -> History:
    """Samples behind each device's cursor, oldest first, ``limit`` a device group at most."""
    found: list[Json] = []
    sums = PhaseSums()
    devices = sorted(cursors)
    for start in range(0, len(devices), BATCH):
        group = devices[start : start + BATCH]
        behind = reduce(or_, (Q(device_id=i, seq__gt=cursors[i]) for i in group))
        found.extend(_read(rows.filter(behind).order_by("seq")[:limit], sums))
    return History(found, _newest(found, cursors), phase_s=sums.found)


def history(rows: QuerySet[Sample], devices: Sequence[int], points: int = POINTS) -> History:
    """All samples of these devices, thinned to about ``points`` together."""
    counts = dict(rows.values_list("device_id").annotate(n=Count("id")).order_by("device_id"))
    stride = max(1, math.ceil(sum(counts.values()) / READ_AT_MOST))
    if stride > 1:
        # What was rolled up is sparse as it is; its numbers lie as they fell.
        rows = rows.annotate(nth=Mod(F("seq"), stride)).filter(Q(nth=0) | Q(span_s__gt=0))
    each = max(60, points // max(1, len(counts)))
    sums = PhaseSums(stride)
    apart: dict[int, list[Json]] = {}
    for sample in _read(rows.order_by("device_id", "seq"), sums):
        apart.setdefault(sample["device"], []).append(sample)
    kept = [sample for samples in apart.values() for sample in thin(samples, each)]
    cursors = {**dict.fromkeys(devices, 0), **{i: group[-1]["seq"] for i, group in apart.items()}}
    return History(kept, cursors, len(kept) < sum(counts.values()), sums.found)


def thin(samples: Sequence[Json], limit: int) -> list[Json]:
    """At most about ``limit`` of the samples: the ends, and each stretch's extremes."""
    if len(samples) <= limit:
        return list(samples)
    stretches = max(1, limit // (2 * len(EXTREMES)))
    keep = {0, len(samples) - 1}
    for number in range(stretches):
        start = number * len(samples) // stretches
        stop = (number + 1) * len(samples) // stretches
        for key in EXTREMES:
            held = [i for i in range(start, stop) if key in samples[i]["values"]]
            if held:
                keep.add(min(held, key=lambda i: samples[i]["values"][key]))
                keep.add(max(held, key=lambda i: samples[i]["values"][key]))
    return [samples[i] for i in sorted(keep)]


def _read(rows: QuerySet[Sample], sums: PhaseSums) -> Iterable[Json]:
    of = ("assignment_id", "assignment__round__number", "assignment__task")
    columns = ("device_id", "seq", "at", *of, "values", "span_s")
    found = rows.values_list(*columns).iterator(2000)
    for device, seq, at, assignment, number, task, values, span_s in found:
        sums.add(device, assignment, number, values)
        yield {
            "device": device,
            "seq": seq,
            "at": at.isoformat(timespec="milliseconds"),
            "round": number,
            "task": task,
            "values": _drawn(values),
            **({"span_s": span_s} if span_s else {}),
        }


def _drawn(values: Json) -> Json:
    """What charts show of a sample; a figure that cannot be true is left out, which is a hole."""
    bounds = {key: METRICS[key] for key in DRAWN if key in values}
    read = {key: plausible(values[key], to.low, to.high) for key, to in bounds.items()}
    drawn = {key: _short(value) for key, value in read.items() if value is not None}
    for key, power in EFFICIENCY.items():
        if drawn.get("tokens_per_s") and drawn.get(power):
            drawn[key] = _short(drawn["tokens_per_s"] / drawn[power])
    return drawn


def _short(value: float) -> float:
    """Five significant digits: more than any chart shows."""
    return float(f"{value:.5g}")


def _newest(samples: Iterable[Json], cursors: Mapping[int, int]) -> dict[int, int]:
    newest = dict(cursors)
    for sample in samples:
        newest[sample["device"]] = max(newest[sample["device"]], sample["seq"])
    return newest
