"""What a finished job says in one line of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from workers.stack.site import Site

SCORES = ("rouge1", "rouge2", "rougeL", "loss")


def summary(site: Site, job: dict[str, Any], artefact_path: str) -> dict[str, Any]:
    """Rounds, seconds, scores before and after, bytes, mean MFU; None where nothing was measured.

    MFU is the mean over the training assignments, weighted by their seconds.
    """
    rounds = [r for r in site.everything("/rounds/", job=job["id"]) if r["phase"] == "closed"]
    rounds.sort(key=lambda row: row["number"])
    work = list(site.everything("/assignments/", job=job["id"]))
    before = rounds[0]["evaluation"] if rounds else {}
    after = rounds[-1]["evaluation"] if rounds else {}
    return {
        "phase": job["phase"],
        "reason": job["reason"],
        "rounds": max((row["number"] for row in rounds), default=0),
        "seconds": _seconds(job),
        "before": {key: _rounded(before.get(key)) for key in SCORES},
        "after": {key: _rounded(after.get(key)) for key in SCORES},
        "bytes_up": sum(row["bytes_up"] for row in work),
        "bytes_down": sum(row["bytes_down"] for row in work),
        "mean_mfu": mean_mfu(work),
        "job": job["id"],
        "artefact_path": artefact_path,
    }


def mean_mfu(work: Sequence[dict[str, Any]]) -> float | None:
    pairs = [
        (row["metrics"]["mfu"], row["metrics"].get("seconds", 0.0))
        for row in work
        if row["task"] == "train" and row["metrics"].get("mfu") is not None
    ]
    seconds = sum(weight for _, weight in pairs)
    if not seconds:
        return None
    return float(f"{sum(mfu * weight for mfu, weight in pairs) / seconds:.4g}")


def _seconds(job: dict[str, Any]) -> float | None:
    if not job["started_at"] or not job["ended_at"]:
        return None
    started, ended = (datetime.fromisoformat(job[key]) for key in ("started_at", "ended_at"))
    return round((ended - started).total_seconds(), 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
