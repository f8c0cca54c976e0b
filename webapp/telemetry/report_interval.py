"""Reporting interval of devices: one second while a page shows them, longer in a large fleet."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.core.cache import cache

WATCHED_S = 1.0
WORKING_S = 2.0
IDLE_S = 3.0
# What one web process handles beside its pages.
BATCHES_PER_S = 200.0
WATCH_TTL_S = 15


def watch(*subjects: UUID | int) -> None:
    """A page shows these jobs (UUID) or devices (int); remembered for WATCH_TTL_S."""
    cache.set_many({_key(subject): 1 for subject in subjects}, WATCH_TTL_S)


def interval_s(device_id: int, job_id: UUID | None, online: int) -> float:
    """Seconds until the device's next batch. ``online``: number of devices of the site."""
    shortest_s = online / BATCHES_PER_S
    longest_s = float(settings.OFFLINE_AFTER_S) / 3
    wished_s = WORKING_S if job_id is not None else IDLE_S
    subjects: list[UUID | int] = [device_id] if job_id is None else [device_id, job_id]
    if cache.get_many([_key(subject) for subject in subjects]):
        wished_s = WATCHED_S
    return max(WATCHED_S, min(max(wished_s, shortest_s), max(longest_s, shortest_s)))


def _key(subject: UUID | int) -> str:
    return f"watched:{subject}"
