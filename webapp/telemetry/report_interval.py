"""How often a device shall report: each second where somebody watches, slower in a large fleet."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.core.cache import cache

WATCHED_S = 1.0
WORKING_S = 2.0
IDLE_S = 3.0
# One web process takes about this many batches a second next to its pages.
BATCHES_PER_S = 200.0
WATCH_TTL_S = 15


def watch(*subjects: UUID | int) -> None:
    """Note that a page shows these jobs (UUID) or devices (int) now; lasts WATCH_TTL_S."""
    cache.set_many({_key(subject): 1 for subject in subjects}, WATCH_TTL_S)


def interval_s(device_id: int, job_id: UUID | None, online: int) -> float:
    """Seconds until the device's next batch. ``online`` is the number of devices of the site."""
    crowd = online / BATCHES_PER_S
    ceiling = float(settings.OFFLINE_AFTER_S) / 3
    pace = WORKING_S if job_id is not None else IDLE_S
    if _watched(device_id, job_id):
        pace = WATCHED_S
    return max(WATCHED_S, min(max(pace, crowd), max(ceiling, crowd)))


def _watched(device_id: int, job_id: UUID | None) -> bool:
    subjects: list[UUID | int] = [device_id] if job_id is None else [device_id, job_id]
    return bool(cache.get_many([_key(subject) for subject in subjects]))


def _key(subject: UUID | int) -> str:
    return f"watched:{subject}"
