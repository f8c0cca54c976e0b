"""Samples behind a reader's cursors, and long histories thinned without losing their extremes.

Nothing is averaged: thinning keeps whole samples, in each stretch of time those where a metric is
lowest or highest, and says that it did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Mod

from webapp.jobs.models import Job
from webapp.telemetry.models import Sample

Json = dict[str, Any]
# What charts draw; the other values of a sample stay on the server.
DRAWN = (
    "loss",
    "mfu",
    "tokens_per_s",
    "net_up_bps",
    "net_down_bps",
    "watts",
    "memory_bytes",
    "peak_memory_bytes",
    "mfu_peak_flops",
)
# Thinning keeps the extremes of these.
EXTREMES = ("loss", "mfu", "tokens_per_s", "net_up_bps", "net_down_bps")
POINTS = 12_000  # of all devices together in one answer
READ_AT_MOST = 200_000  # samples read for one history
BATCH = 100  # cursors in one query


@dataclass(frozen=True)
class History:
    """``thinned``: not every sample is here. ``cursors``: the newest seq of each device."""

    samples: list[Json]
    cursors: dict[int, int]
    thinned: bool = False


def of_job(job: Job) -> QuerySet[Sample]:
    return Sample.objects.filter(assignment__round__job=job)


def newer(rows: QuerySet[Sample], cursors: Mapping[int, int], limit: int = 5000) -> History:
    """Samples behind each device's cursor, oldest first, ``limit`` a device group at most."""
    found: list[Json] = []
    devices = sorted(cursors)
    for start in range(0, len(devices), BATCH):
        group = devices[start : start + BATCH]
        behind = reduce(or_, (Q(device_id=i, seq__gt=cursors[i]) for i in group))
        found.extend(_read(rows.filter(behind).order_by("seq")[:limit]))
    return History(found, _newest(found, cursors))


def history(rows: QuerySet[Sample], devices: Sequence[int], points: int = POINTS) -> History:
    """All samples of these devices, thinned to about ``points`` together."""
    counts = dict(rows.values_list("device_id").annotate(n=Count("id")).order_by("device_id"))
    stride = max(1, math.ceil(sum(counts.values()) / READ_AT_MOST))
    if stride > 1:
        # What was rolled up is sparse as it is; its numbers lie as they fell.
        rows = rows.annotate(nth=Mod(F("seq"), stride)).filter(Q(nth=0) | Q(span_s__gt=0))
    each = max(60, points // max(1, len(counts)))
    apart: dict[int, list[Json]] = {}
    for sample in _read(rows.order_by("device_id", "seq")):
        apart.setdefault(sample["device"], []).append(sample)
    kept = [sample for samples in apart.values() for sample in thin(samples, each)]
    cursors = {**dict.fromkeys(devices, 0), **{i: group[-1]["seq"] for i, group in apart.items()}}
    return History(kept, cursors, len(kept) < sum(counts.values()))


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


def _read(rows: QuerySet[Sample]) -> Iterable[Json]:
    of = ("assignment__round__number", "assignment__task")
    columns = ("device_id", "seq", "at", *of, "values", "span_s")
    for device, seq, at, number, task, values, span_s in rows.values_list(*columns).iterator(2000):
        yield {
            "device": device,
            "seq": seq,
            "at": at.isoformat(timespec="milliseconds"),
            "round": number,
            "task": task,
            "values": {key: _short(values[key]) for key in DRAWN if key in values},
            **({"span_s": span_s} if span_s else {}),
        }


def _short(value: float) -> float:
    """Five significant digits: more than any chart shows."""
    return float(f"{value:.5g}")


def _newest(samples: Iterable[Json], cursors: Mapping[int, int]) -> dict[int, int]:
    newest = dict(cursors)
    for sample in samples:
        newest[sample["device"]] = max(newest[sample["device"]], sample["seq"])
    return newest
