"""Refuses settings of what is kept that would take something from a running job."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from fedcore.rounds.retention import RetentionPolicy

SHORTEST_GRACE_H = 0.02  # a fold stores its result before it names it in a row


def check_retention(
    kept: tuple[int, float, float, float], sample_ages_h: tuple[float, float, float]
) -> None:
    """``kept``: models, hours of updates, hours of grace, seconds between two collections.

    Raises ImproperlyConfigured that names the variable and what to set instead.
    """
    models, updates_h, grace_h, interval_s = kept
    try:
        RetentionPolicy(models, updates_h * 3600.0)
    except ValueError as error:
        name = "EDGEWISE_KEEP_MODELS" if models < 1 else "EDGEWISE_KEEP_UPDATES_H"
        raise ImproperlyConfigured(f"{name}: {error}") from error
    if grace_h < SHORTEST_GRACE_H:
        raise ImproperlyConfigured(
            f"EDGEWISE_COLLECT_GRACE_H={grace_h:g} could delete what a running job is just "
            f"storing; set at least {SHORTEST_GRACE_H:g}"
        )
    if interval_s < 1:
        raise ImproperlyConfigured("EDGEWISE_COLLECT_INTERVAL_S must be at least 1 second")
    if not 0 < sample_ages_h[0] <= sample_ages_h[1] <= sample_ages_h[2]:
        raise ImproperlyConfigured(
            "EDGEWISE_KEEP_SAMPLES_H, _10S_H and _1MIN_H must be above 0, and none below the one "
            "before it: samples are rolled up step by step"
        )
