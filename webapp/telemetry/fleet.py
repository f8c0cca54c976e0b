"""Short heads of devices and jobs, for lists and for the pages that follow the whole fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.db.models import Prefetch, QuerySet

from webapp.devices.models import Device
from webapp.jobs import live
from webapp.jobs.models import Assignment, Job, Participant, Round

Json = dict[str, Any]
PRESENCES = ("online", "busy", "offline", "never seen", "revoked")


def device_head(device: Device) -> Json:
    """What a list shows of a device and what changes by itself."""
    activity = device.activity if device.presence == "busy" else {}
    return {
        "id": device.pk,
        "name": device.name,
        "presence": device.presence,
        "last_seen_at": device.last_seen_at.isoformat() if device.last_seen_at else None,
        "phase": activity.get("phase", ""),
        "step": activity.get("step"),
        "steps": activity.get("steps_total"),
    }


def counts(heads: Iterable[Json]) -> dict[str, int]:
    """How many devices are in each state, every state named."""
    found = Counter(head["presence"] for head in heads)
    return {presence: found.get(presence, 0) for presence in PRESENCES}


def job_heads(jobs: QuerySet[Job]) -> list[Json]:
    """State, round, progress and losses of these jobs, in four queries however many they are."""
    newest = Assignment.objects.order_by("slot", "attempt")
    rows = list(
        jobs.prefetch_related(
            Prefetch(
                "participants",
                queryset=Participant.objects.select_related("device").order_by("slot"),
            ),
            Prefetch("rounds", queryset=Round.objects.order_by("number", "attempt")),
        )
    )
    last = {job.pk: list(job.rounds.all())[-1:] for job in rows}
    open_ = [row.pk for found in last.values() for row in found if row.phase not in live.ENDED]
    parts: dict[int, list[Assignment]] = {}
    for part in newest.filter(round__in=open_):
        parts.setdefault(part.round_id, []).append(part)
    return [_job_head(job, last[job.pk], parts) for job in rows]


def _job_head(job: Job, last: list[Round], parts: dict[int, list[Assignment]]) -> Json:
    people = list(job.participants.all())
    total = int(job.spec.get("rounds", 1))
    current = last[0] if last else None
    if current is not None:
        current._prefetched_objects_cache = {  # type: ignore[attr-defined]
            "assignments": parts.get(current.pk, [])
        }
    scored = [row.evaluation for row in job.rounds.all() if row.evaluation]
    return {
        "id": str(job.pk),
        "name": job.name,
        "phase": job.phase,
        "headline": live.headline(job, current, people),
        "round": current.number if current else 0,
        "of": total,
        "progress": round(live.progress(job, current, people, total), 3),
        "devices": len(people),
        "losses": [row["loss"] for row in scored if row.get("loss") is not None],
        "rougeL": scored[-1].get("rougeL") if scored else None,
        "rougeL_base": scored[0].get("rougeL") if scored else None,
    }
