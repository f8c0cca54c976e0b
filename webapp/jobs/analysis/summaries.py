"""Summaries of devices and jobs, for lists and for pages that follow the whole fleet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from django.db.models import QuerySet

from webapp.devices.models import Device
from webapp.jobs.analysis import snapshot
from webapp.jobs.analysis.device_history import set_prefetched
from webapp.jobs.analysis.headline import headline
from webapp.jobs.analysis.json_types import DeviceSummary, JobSummary
from webapp.jobs.analysis.round_snapshot import ability_json
from webapp.jobs.analysis.round_totals import ENDED_PHASES
from webapp.jobs.lifecycle.site_state import SiteFaults, site_faults
from webapp.jobs.models import Assignment, Job, Participant, Round
from webapp.jobs.round_records import EvaluationRecord

PRESENCES = ("online", "busy", "offline", "never seen", "revoked")


def device_summary(device: Device) -> DeviceSummary:
    """Name, presence and current step of a device."""
    activity = device.activity if device.presence == "busy" else {}
    return {
        "id": device.pk,
        "name": device.name,
        "presence": device.presence,
        "ability": ability_json(device),
        "last_seen_at": device.last_seen_at.isoformat() if device.last_seen_at else None,
        "phase": activity.get("phase", ""),
        "step": activity.get("step"),
        "steps": activity.get("steps_total"),
    }


def presence_counts(presences: Iterable[str]) -> dict[str, int]:
    """Number of devices by presence, zeros included."""
    counts = Counter(presences)
    return {presence: counts.get(presence, 0) for presence in PRESENCES}


def job_summaries(jobs: QuerySet[Job]) -> list[JobSummary]:
    """State, round, progress and losses of these jobs, in four queries."""
    rows, faults = list(jobs), site_faults()
    keys = [job.pk for job in rows]
    participants = defaultdict(list)
    for person in (
        Participant.objects.filter(job__in=keys).select_related("device").order_by("slot")
    ):
        participants[person.job_id].append(person)
    rounds = defaultdict(list)
    for row in Round.objects.filter(job__in=keys).order_by("number", "attempt"):
        rounds[row.job_id].append(row)
    newest = [of_job[-1] for of_job in rounds.values()]
    open_ = [row.pk for row in newest if row.phase not in ENDED_PHASES]
    assignments = defaultdict(list)
    for item in Assignment.objects.filter(round__in=open_).order_by("slot", "attempt"):
        assignments[item.round_id].append(item)
    for row in newest:
        set_prefetched(row, assignments=assignments[row.pk])
    return [_job_summary(job, participants[job.pk], rounds[job.pk], faults) for job in rows]


def _job_summary(
    job: Job, participants: list[Participant], rounds: list[Round], faults: SiteFaults
) -> JobSummary:
    total = int(job.spec.get("rounds", 1))
    current = rounds[-1] if rounds else None
    evaluations = [row.evaluation for row in rounds if row.evaluation]
    base = next((row.evaluation for row in rounds if row.number == 0), EvaluationRecord())
    return {
        "id": str(job.pk),
        "name": job.name,
        "phase": job.phase,
        "headline": headline(job, current, participants, faults),
        "round": current.number if current else 0,
        "of": total,
        "progress": round(snapshot.progress(job, current, participants, total), 3),
        "devices": len(participants),
        "losses": [item["loss"] for item in evaluations if item.get("loss") is not None],
        "rougeL": evaluations[-1].get("rougeL") if evaluations else None,
        "rougeL_base": base.get("rougeL"),
    }
