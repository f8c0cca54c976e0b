"""The pass on a slower timer that keeps a site from growing without bound.

Each part does a bounded piece of work; what is left waits for the next pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from django.utils import timezone

from webapp.devices.broker_users import drop_orphans
from webapp.jobs.artefacts import garbage_collection
from webapp.jobs.artefacts.store import remove_leftovers
from webapp.telemetry import rollup

log = logging.getLogger(__name__)


def _artefacts() -> int:
    done = garbage_collection.collect()
    if done.removed:
        log.info("%d artefacts were removed, %d bytes", done.removed, done.freed_bytes)
    return done.removed


# What is done -> how; each returns how many it dealt with.
PARTS: Mapping[str, Callable[[], int]] = {
    "artefacts that nobody needs": _artefacts,
    "files of killed processes": remove_leftovers,
    "samples rolled up": lambda: rollup.roll_up(timezone.now()),
    "samples and events past their age": lambda: rollup.prune(timezone.now()),
    "broker keys of gone devices": drop_orphans,
}


def run() -> dict[str, int]:
    """All parts, whatever becomes of one; returns the counts of those that went through."""
    counts = {}
    for what, part in PARTS.items():
        try:
            counts[what] = part()
        except Exception:  # one that fails must not keep the others from tidying
            log.exception("could not deal with %s", what)
    log.info("collected: %s", ", ".join(f"{count} {what}" for what, count in counts.items()))
    return counts
