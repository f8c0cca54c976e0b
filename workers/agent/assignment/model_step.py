"""The next model from the one that is here and a step: a smaller download, the same bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from fedcore.errors import ServerRefused, WireError
from fedcore.formats.wire_offer import StepOffer
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload

log = logging.getLogger(__name__)

Fetch = Callable[[str, int], Path]


def rebuilt(
    cache: ArtefactCache, step: StepOffer | None, sha256: str, size: int, fetch: Fetch
) -> Path | None:
    """The model ``sha256`` of ``size`` bytes, if the step's base is here and leads to it.

    ``fetch`` gets an artefact by SHA-256 and size. None: the whole model is to be fetched, because
    no step was offered, its base is not here, or anything about it differs. Imports torch.
    """
    base = cache.held(step.base, size) if step else None
    if step is None or base is None:
        return None
    from fedcore.wire.downlink import rebuild

    try:
        path = fetch(step.sha256, step.size_bytes)
        out = path.with_name(f"{sha256}.rebuilt")
        found = rebuild(base, path, out)
        path.unlink()
    except (WireError, ServerRefused, BrokenDownload) as error:
        log.warning("the step to %s is of no use (%s); the whole model is due", sha256[:12], error)
        return None
    if found.sha256 != sha256:
        out.unlink()
        log.warning("the step led to %s, not to %s", found.sha256[:12], sha256[:12])
        return None
    return cache.adopt(out, sha256)
