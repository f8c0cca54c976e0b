"""Old samples become fewer: one for ten seconds, later one for a minute, in the end none.

Several samples of one device, of one assignment and of one stretch of time become the last of them,
with values that stand for all: sums stay sums, rates become means, the highest stays the highest.
Nothing of the time they tell of goes, so a chart has no holes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean

from django.conf import settings
from django.db import transaction

from webapp.common.metric_definitions import METRICS
from webapp.jobs.models import Event
from webapp.telemetry.models import Sample

AT_ONCE = 20_000  # samples read in one pass; the next one goes on


@dataclass(frozen=True)
class Resolution:
    """Samples of ``source_s`` that are older than ``after_h`` become one for each ``span_s``."""

    source_s: int
    span_s: int
    after_h: float


def resolutions() -> tuple[Resolution, Resolution]:
    return (
        Resolution(0, 10, settings.KEEP_SAMPLES_H),
        Resolution(10, 60, settings.KEEP_SAMPLES_10S_H),
    )


def combine(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One sample's values for those of several, oldest first."""
    names = dict.fromkeys(name for item in values for name in item)
    return {name: _one(name, [item[name] for item in values if name in item]) for name in names}


def _one(name: str, numbers: list[float]) -> float:
    how = METRICS[name].rolled if name in METRICS else "mean"
    if how == "sum":
        return sum(numbers)
    return max(numbers) if how == "highest" else fmean(numbers)


def roll_up(now: datetime) -> int:
    """One pass over what is old enough; returns how many samples went into others."""
    return sum(_roll(level, now - timedelta(hours=level.after_h)) for level in resolutions())


def _roll(level: Resolution, before: datetime) -> int:
    rows = Sample.objects.filter(span_s=level.source_s, at__lt=before)
    oldest = list(rows.order_by("at")[:AT_ONCE])
    kept, gone = _merged(oldest, level.span_s)
    with transaction.atomic():
        Sample.objects.bulk_update(kept, ["values", "span_s"], batch_size=500)
        for start in range(0, len(gone), 500):
            Sample.objects.filter(pk__in=gone[start : start + 500]).delete()
    return len(gone)


def _merged(rows: Iterable[Sample], span_s: int) -> tuple[list[Sample], list[int]]:
    """The samples that stay, changed, and the ids of those that go."""
    stretches: dict[tuple[int, object, int], list[Sample]] = {}
    for row in rows:
        key = (row.device_id, row.assignment_id, int(row.at.timestamp()) // span_s)
        stretches.setdefault(key, []).append(row)
    kept, gone = [], []
    for group in stretches.values():
        group.sort(key=lambda row: row.seq)
        last = group[-1]
        last.values, last.span_s = combine([row.values for row in group]), span_s
        kept.append(last)
        gone += [row.pk for row in group[:-1]]
    return kept, gone


def prune(now: datetime) -> int:
    """Drop samples and the fleet's events past their age; a job's own events stay with it."""
    before = now - timedelta(hours=settings.KEEP_SAMPLES_1MIN_H)
    old = Sample.objects.filter(span_s=60, at__lt=before).order_by("at")
    count, _ = Sample.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:500])).delete()
    before = now - timedelta(hours=settings.KEEP_EVENTS_H)
    fleet = Event.objects.filter(job=None, at__lt=before).order_by("at")
    told, _ = Event.objects.filter(pk__in=list(fleet.values_list("pk", flat=True)[:500])).delete()
    return count + told
