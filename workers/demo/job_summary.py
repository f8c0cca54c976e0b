"""The summary of a finished job, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from workers.stack.site import Site

SCORES = ("rouge1", "rouge2", "rougeL", "loss")


def summary(site: Site, job: dict[str, Any], artefact_path: str) -> dict[str, Any]:
    """Rounds, seconds, scores before and after, bytes, mean MFU; None where not measured.

    MFU is averaged over the training assignments, weighted by their seconds.
    """
    rounds = [r for r in site.all_rows("/rounds/", job=job["id"]) if r["phase"] == "closed"]
    rounds.sort(key=lambda row: row["number"])
    assignments = list(site.all_rows("/assignments/", job=job["id"]))
    seconds = None
    if job["started_at"] and job["ended_at"]:
        started, ended = (datetime.fromisoformat(job[key]) for key in ("started_at", "ended_at"))
        seconds = round((ended - started).total_seconds(), 1)
    before = rounds[0]["evaluation"] if rounds else {}
    after = rounds[-1]["evaluation"] if rounds else {}
    return {
        "phase": job["phase"],
        "reason": job["reason"],
        "rounds": max((row["number"] for row in rounds), default=0),
        "seconds": seconds,
        "before": {key: _rounded(before.get(key)) for key in SCORES},
        "after": {key: _rounded(after.get(key)) for key in SCORES},
        "bytes_up": sum(row["bytes_up"] for row in assignments),
        "bytes_down": sum(row["bytes_down"] for row in assignments),
        "mean_mfu": mean_mfu(assignments),
        "job": job["id"],
        "artefact_path": artefact_path,
    }


def mean_mfu(assignments: Sequence[dict[str, Any]]) -> float | None:
    pairs = [
        (row["metrics"]["mfu"], row["metrics"].get("seconds", 0.0))
        for row in assignments
        if row["task"] == "train" and row["metrics"].get("mfu") is not None
    ]
    seconds = sum(weight for _, weight in pairs)
    if not seconds:
        return None
    return float(f"{sum(mfu * weight for mfu, weight in pairs) / seconds:.4g}")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
