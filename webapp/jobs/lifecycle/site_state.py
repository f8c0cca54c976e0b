"""What the site itself lacks: space, a coordinator, an aggregation worker, its broker.

Jobs wait for these as they wait for devices, so pages and the sentence on a job name them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path

from django.conf import settings
from django.core.cache import cache, caches
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from webapp.common import units
from webapp.common.cache import TolerantRedisCache
from webapp.jobs.artefacts.store import incoming_dir, storage
from webapp.jobs.models import Watch

COORDINATOR_LATE = timedelta(seconds=30)
WORKER_KEY = "aggregation-worker"
WORKER_BEAT_S = 20.0
WORKER_TTL_S = 60

BROKER_TEXT = "the site's broker (Redis) does not answer"
NO_WORKER_TEXT = "no aggregation worker is running: start one"


class SitePart(str, Enum):
    """What every job needs, but for AGGREGATION, which only some of their steps do."""

    DISK = "disk"
    BROKER = "broker"
    COORDINATOR = "coordinator"
    AGGREGATION = "aggregation"


@dataclass(frozen=True)
class SiteFault:
    """A part that does not work; ``text`` begins in lower case and says what to do."""

    part: SitePart
    text: str


SiteFaults = tuple[SiteFault, ...]


def site_faults() -> SiteFaults:
    """All of them, the most urgent first."""
    backend = caches["default"]
    is_broker_down = isinstance(backend, TolerantRedisCache) and not backend.is_reachable()
    # Workers report through the broker, so without it nothing is known of them.
    lacks_worker = not is_broker_down and not cache.get(WORKER_KEY)
    looked_at = Watch.objects.filter(pk=Watch.ONLY).values_list("looked_at", flat=True).first()
    coordinator = ""
    if looked_at is None:
        coordinator = "the coordinator has never run: start it"
    elif (late := timezone.now() - looked_at) >= COORDINATOR_LATE:
        since = units.coarse(late.total_seconds())
        coordinator = f"the coordinator has not run for {since}: start it"
    texts = {
        SitePart.DISK: disk_text(),
        SitePart.BROKER: BROKER_TEXT if is_broker_down else "",
        SitePart.COORDINATOR: coordinator,
        SitePart.AGGREGATION: NO_WORKER_TEXT if lacks_worker else "",
    }
    return tuple(SiteFault(part, text) for part, text in texts.items() if text)


def disk_text() -> str:
    """Words for a disk without room for updates and models; '' where there is enough."""
    place, folders = storage(), [incoming_dir()]
    if isinstance(place, FileSystemStorage):
        folders.append(Path(place.location))
    free = min(shutil.disk_usage(folder).free for folder in folders if folder.exists())
    if free >= settings.MIN_FREE_BYTES:
        return ""
    return f"the server's disk is full: less than {units.size(settings.MIN_FREE_BYTES)} is free"


def report_worker() -> None:
    """An aggregation worker is running; it calls this every WORKER_BEAT_S."""
    cache.set(WORKER_KEY, 1, WORKER_TTL_S)
