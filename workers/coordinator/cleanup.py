"""The periodic cleanup that keeps a site from growing without bound.

Each part does a bounded amount of work; the rest waits for the next pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from django.utils import timezone

from webapp.jobs.artefacts import garbage_collection
from webapp.jobs.artefacts.store import remove_leftovers
from webapp.telemetry import rollup

log = logging.getLogger(__name__)


def _collect_artefacts() -> int:
    removal = garbage_collection.collect()
    if removal.removed:
        log.info("removed %d artefacts, %d bytes", removal.removed, removal.freed_bytes)
    return removal.removed


# What is removed -> how; each function returns how many.
PARTS: Mapping[str, Callable[[], int]] = {
    "unreferenced artefacts": _collect_artefacts,
    "files of killed processes": remove_leftovers,
    "samples rolled up": lambda: rollup.roll_up(timezone.now()),
    "expired samples and events": lambda: rollup.prune(timezone.now()),
}


def run() -> dict[str, int]:
    """Run all parts, even if one fails; returns the counts of those that succeeded."""
    counts = {}
    for name, part in PARTS.items():
        try:
            counts[name] = part()
        except Exception:  # a failing part must not stop the others
            log.exception("could not clean up %s", name)
    log.info("cleaned up: %s", ", ".join(f"{count} {name}" for name, count in counts.items()))
    return counts
