"""Short heads of devices and jobs, for lists and for the pages that follow the whole fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar
from uuid import UUID

from django.db.models import QuerySet

from webapp.devices.models import Device
from webapp.jobs.analysis import snapshot
from webapp.jobs.analysis.device_history import set_prefetched
from webapp.jobs.models import Assignment, Job, Participant, Round

Json = dict[str, Any]
R = TypeVar("R", Participant, Round)
PRESENCES = ("online", "busy", "offline", "never seen", "revoked")


def device_summary(device: Device) -> Json:
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


def presence_counts(heads: Iterable[Json]) -> dict[str, int]:
    """How many devices are in each state, every state named."""
    found = Counter(head["presence"] for head in heads)
    return {presence: found.get(presence, 0) for presence in PRESENCES}


def job_summaries(jobs: QuerySet[Job]) -> list[Json]:
    """State, round, progress and losses of these jobs, in four queries however many they are."""
    rows = list(jobs)
    keys = [job.pk for job in rows]
    people = _by_job(Participant.objects.select_related("device").order_by("slot"), keys)
    cycles = _by_job(Round.objects.order_by("number", "attempt"), keys)
    open_ = {found[-1].pk: found[-1] for found in cycles.values() if _is_open(found[-1])}
    parts: dict[int, list[Assignment]] = {}
    for part in Assignment.objects.filter(round__in=open_).order_by("slot", "attempt"):
        parts.setdefault(part.round_id, []).append(part)
    for found in cycles.values():
        set_prefetched(found[-1], assignments=parts.get(found[-1].pk, []))
    return [_job_head(job, people.get(job.pk, []), cycles.get(job.pk, [])) for job in rows]


def _is_open(row: Round) -> bool:
    return row.phase not in snapshot.ENDED_PHASES


def _by_job(rows: QuerySet[R], keys: list[UUID]) -> dict[UUID, list[R]]:
    found: dict[UUID, list[R]] = {}
    for row in rows.filter(job__in=keys):
        found.setdefault(row.job_id, []).append(row)
    return found


def _job_head(job: Job, people: list[Participant], cycles: list[Round]) -> Json:
    total = int(job.spec.get("rounds", 1))
    current = cycles[-1] if cycles else None
    scored = [row.evaluation for row in cycles if row.evaluation]
    start: Json = next((row.evaluation for row in cycles if row.number == 0), {})
    return {
        "id": str(job.pk),
        "name": job.name,
        "phase": job.phase,
        "headline": snapshot.headline(job, current, people),
        "round": current.number if current else 0,
        "of": total,
        "progress": round(snapshot.progress(job, current, people, total), 3),
        "devices": len(people),
        "losses": [row["loss"] for row in scored if row.get("loss") is not None],
        "rougeL": scored[-1].get("rougeL") if scored else None,
        "rougeL_base": start.get("rougeL"),
    }
