"""Roll-up of old samples: to one per 10 s, later to one per minute; finally they are deleted.

Samples of one device, assignment and interval are merged into the last of them: sums are added,
rates averaged, maxima kept. Every interval keeps a sample, so charts have no gaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean

from django.conf import settings
from django.db import transaction

from webapp.common.metric_definitions import METRICS
from webapp.jobs.models import Event
from webapp.telemetry.models import Sample

MAX_SAMPLES = 20_000  # read in one pass; the next one continues
BATCH = 500


@dataclass(frozen=True)
class Resolution:
    """Samples of ``source_s`` older than ``after_h`` are merged to one per ``span_s``."""

    source_s: int
    span_s: int
    after_h: float


def resolutions() -> tuple[Resolution, Resolution]:
    return (
        Resolution(0, 10, settings.KEEP_SAMPLES_H),
        Resolution(10, 60, settings.KEEP_SAMPLES_10S_H),
    )


def combine(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The values of a merged sample; ``values`` are the samples', oldest first."""
    combined: dict[str, float] = {}
    for name in dict.fromkeys(name for item in values for name in item):
        numbers = [item[name] for item in values if name in item]
        rule = METRICS[name].rolled if name in METRICS else "mean"
        if rule == "sum":
            combined[name] = sum(numbers)
        else:
            combined[name] = max(numbers) if rule == "highest" else fmean(numbers)
    return combined


def roll_up(now: datetime) -> int:
    """One pass over old samples; returns the number of samples merged into others."""
    removed_count = 0
    for resolution in resolutions():
        before = now - timedelta(hours=resolution.after_h)
        rows = Sample.objects.filter(span_s=resolution.source_s, at__lt=before).order_by("at")
        intervals: dict[tuple[int, object, int], list[Sample]] = {}
        for row in rows[:MAX_SAMPLES]:
            interval = int(row.at.timestamp()) // resolution.span_s
            intervals.setdefault((row.device_id, row.assignment_id, interval), []).append(row)
        merged, removed = [], []
        for group in intervals.values():
            group.sort(key=lambda row: row.seq)
            last = group[-1]
            last.values, last.span_s = combine([row.values for row in group]), resolution.span_s
            merged.append(last)
            removed += [row.pk for row in group[:-1]]
        with transaction.atomic():
            Sample.objects.bulk_update(merged, ["values", "span_s"], batch_size=BATCH)
            for start in range(0, len(removed), BATCH):
                Sample.objects.filter(pk__in=removed[start : start + BATCH]).delete()
        removed_count += len(removed)
    return removed_count


def prune(now: datetime) -> int:
    """Delete samples and fleet events past their age; a job's events stay with the job."""
    before = now - timedelta(hours=settings.KEEP_SAMPLES_1MIN_H)
    samples = Sample.objects.filter(span_s=60, at__lt=before).order_by("at")
    keys = list(samples.values_list("pk", flat=True)[:BATCH])
    sample_count, _ = Sample.objects.filter(pk__in=keys).delete()
    before = now - timedelta(hours=settings.KEEP_EVENTS_H)
    events = Event.objects.filter(job=None, at__lt=before).order_by("at")
    keys = list(events.values_list("pk", flat=True)[:BATCH])
    event_count, _ = Event.objects.filter(pk__in=keys).delete()
    return sample_count + event_count
