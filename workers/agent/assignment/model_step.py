"""Rebuilds the next global model from the cached one and a step: a smaller download, same bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from fedcore.errors import ServerRefused, WireError
from fedcore.formats.wire_offer import StepOffer
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload

log = logging.getLogger(__name__)

Fetch = Callable[[str, int], Path]


def rebuild_model(
    cache: ArtefactCache, step: StepOffer | None, sha256: str, size: int, fetch: Fetch
) -> Path | None:
    """The model ``sha256`` of ``size`` bytes, if the step's base is cached and leads to it.

    ``fetch`` downloads an artefact by SHA-256 and size. None means that the whole model must be
    downloaded: no step was offered, its base is missing, or the result differs. Imports torch.
    """
    base = cache.get(step.base, size) if step else None
    if step is None or base is None:
        return None
    from fedcore.wire.downlink import rebuild

    try:
        path = fetch(step.sha256, step.size_bytes)
        out = path.with_name(f"{sha256}.rebuilt")
        frame = rebuild(base, path, out)
        path.unlink()
    except (WireError, ServerRefused, BrokenDownload) as error:
        log.warning(
            "the step to %s cannot be used (%s); downloading the whole model", sha256[:12], error
        )
        return None
    if frame.sha256 != sha256:
        out.unlink()
        log.warning("the step led to %s instead of %s", frame.sha256[:12], sha256[:12])
        return None
    return cache.adopt(out, sha256)
